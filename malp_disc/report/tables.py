"""Every table of the report as text cells, the same for Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter

from malp_disc.report.cells import NONE, Table, delta_text, label_of, plain, sample_count, value
from malp_disc.report.numbers import number, percent
from malp_disc.report.results import Record
from malp_disc.report.verdict import MOST_REASONS
from malp_disc.run_folder.arms import ARMS, BASELINES, CANDIDATES, CONTENT, EDIT_ACCURACY, LEVERAGE, PERFECT_EDIT, VIEWS
from malp_disc.run_folder.measurement import KernelDistance, Measurement

_REFERENCE_POINTS = {"unedited": "unedited inputs", "real_split": "real-vs-real split"}


def quality_table(record: Record) -> Table:
    """Each arm's distance with its differences from the control and from before, and the reference points."""
    label, confidence = label_of(record), percent(record.bootstrap.confidence)
    header = ["generator", f"{label}{sample_count(record)} ↓", f"minus control ({confidence})", f"minus before ({confidence})"]
    header += ["with n → ∞", "KID ↓ (± over subsets)", f"KID minus control ({confidence})", "n", "seeds", "steps", "seconds"]
    rows = []
    for arm, measured in record.arms.items():
        seeds = "" if arm == "before" else " ".join(map(str, record.seeds_of[arm]))
        row = [arm, value(record, arm, lambda m: m.frechet.value), *(delta_text(record.delta(arm, other)) for other in ("control", "before"))]
        row += [value(record, arm, lambda m: m.frechet.infinity), _kid(measured.kid), delta_text(record.delta(arm, score="kid"))]
        rows.append([*row, plain(measured.frechet.n), seeds, plain(measured.steps), plain(measured.seconds)])
    points, kids = record.reference_points.points("frechet"), record.reference_points.kid
    for name, words in _REFERENCE_POINTS.items():
        point = getattr(points, name)
        rows.append([words, plain(point.value), "", "", plain(point.infinity), _kid(getattr(kids, name)), "", plain(point.n), "", "", ""])
    return _framed(header, rows, 2)


def verdicts_table(record: Record) -> Table:
    """Outcome and reason for every candidate; empty where the verdict's sentence has all the numbers."""
    verdicts = record.verdicts if len(record.verdicts) > MOST_REASONS else {}
    return Table(["candidate", "verdict", "reason"], [[arm, verdict.outcome, verdict.reason] for arm, verdict in verdicts.items()])


def controls_table(record: Record) -> Table:
    """Every candidate minus each control and baseline that was measured."""
    others = [other for other in BASELINES[1:-1] if other in record.arms]
    tuned = [arm for arm in CANDIDATES if arm in record.arms]
    header = [f"{label_of(record)}{sample_count(record)}", *(f"minus {other}" for other in ("control", *others))]
    rows = [[arm, *(delta_text(record.delta(arm, other)) for other in ("control", *others))] for arm in tuned]
    return Table(header, rows if others else [])


def views_table(record: Record) -> Table:
    """The distances at every image size and by the further extractors."""
    views = _views(record)
    if len(views) < 2:
        return Table([], [])
    header = ["generator", *views.values()]
    rows = [[arm, *(value(record, arm, lambda m, view=view: m.distance(view).value) for view in views)] for arm in record.arms]
    for name, words in _REFERENCE_POINTS.items():
        rows.append([words, *(plain(getattr(record.reference_points.points(view), name).value) for view in views)])
    return _framed(header, rows, 2)


def differences_table(record: Record) -> Table:
    """Differences from the control at every image size and by the further extractors."""
    views = _views(record)
    if len(views) < 2:
        return Table([], [])
    confidence = percent(record.bootstrap.confidence)
    header = [f"minus the control ({confidence})", *views.values(), "KID"]
    rows = [[arm, *(delta_text(record.delta(arm, score=view)) for view in (*views, "kid"))] for arm in record.arms if arm != "control"]
    return Table(header, rows)


def edit_differences_table(record: Record) -> Table:
    """Differences of the images' own scores from the control's: edit accuracy, content, and distance from the perfect edits, each where it is known."""
    known = {score: words for score, words in _OF_IMAGES.items() if any(record.delta(arm, score=score) is not None for arm in record.arms)}
    rows = [[arm, *(delta_text(record.delta(arm, score=score)) for score in known)] for arm in record.arms if arm != "control"]
    return Table([f"minus the control ({percent(record.bootstrap.confidence)})", *known.values()], rows) if known and rows else Table([], [])


def leverage_table(record: Record) -> Table:
    """How far fine-tuning moved the extractor's features, relative to the second extractor's, in multiples of the control's; see `malp_disc.metrics.leverage`."""
    header = [f"features moved, {label_of(record)} relative to {label_of(record, 'second')}{sample_count(record)}", "times the control's"]
    header.append(f"over images ({percent(record.bootstrap.confidence)})")
    rows = []
    for arm in record.arms:
        delta = record.delta(arm, score=LEVERAGE) if arm not in ("before", "control") else None
        if delta is not None:
            low, high = (plain(math.exp(end)) for end in (delta.images.low, delta.images.high))
            rows.append([arm, plain(math.exp(delta.value)), f"{low} to {high}"])
    return Table(header, rows)


def spectrum_table(record: Record) -> Table:
    """Power relative to real images at the high frequencies."""
    header = [f"power relative to real images{sample_count(record)}", "fine texture (¾ to 1 of Nyquist)", "Nyquist (checkerboards)"]
    rows = [[arm, *(value(record, arm, lambda m, name=name: getattr(m.spectrum, name)) for name in ("fine", "nyquist"))] for arm in record.arms]
    frame = record.reference_points.spectrum
    return _framed(header, [*rows, [_REFERENCE_POINTS["unedited"], plain(frame.fine), plain(frame.nyquist)]], 1)


def edits_attributes(record: Record) -> bool:
    """Whether the generators edit attributes, or did so for all that is known; not on images without labels."""
    return any(measured.attributes != 0 for measured in record.arms.values())


_OF_IMAGES = {EDIT_ACCURACY: "edit accuracy ↑", CONTENT: "content kept ↑", PERFECT_EDIT: "mean abs difference from the perfect edit ↓"}


def edits_table(record: Record) -> Table:
    """Edit accuracy, leakage, edit strength, what is left of the input (its content, and similarity to it), and the distance from the perfect edits."""
    known = any(measured.perfect_edit is not None for measured in record.arms.values())
    embedding = next((m.identity.name for m in record.arms.values() if m.identity.name), None)
    attributes = edits_attributes(record)
    header = [f"generator{sample_count(record)}", *["edit accuracy ↑", "others kept ↑", "leakage ↓"] * attributes]
    header += ["mean abs(x - G(x))", "content kept ↑ (edge agreement)", "SSIM to the input", "PSNR to the input, dB"]
    header += ["from the perfect edit ↓ (mean abs)"] if known else []
    header += [f"same person ↑ ({embedding.split(',')[0]} cosine)"] if embedding else []
    picks: list[Callable[[Measurement], float | None]] = [
        *[attrgetter(name) for name in ("edit_accuracy", "kept_accuracy", "leakage")] * attributes,
        *(attrgetter(name) for name in ("identity_l1", "content.value", "ssim_to_input", "psnr_to_input")),
        *[attrgetter("perfect_edit")] * known,
        *[attrgetter("identity.value")] * bool(embedding),
    ]
    rows = [[arm, *(value(record, arm, pick) for pick in picks)] for arm in record.arms]
    points = record.reference_points
    frame = [_REFERENCE_POINTS["unedited"], *[plain(points.edit_accuracy), plain(points.kept_accuracy), "0"] * attributes, "0", "1", "1", NONE]
    frame += [plain(points.perfect_edit)] * known + ["1"] * bool(embedding)
    return _framed(header, [*rows, frame], 1)


def attributes_table(record: Record, key: str = "edit_accuracy_per_attribute") -> Table:
    """Edit accuracy by attribute, or with ``leakage_per_attribute`` the leakage."""
    scores = {arm: getattr(measured, key) for arm, measured in record.arms.items()}
    names = list(dict.fromkeys(name for found in scores.values() for name in found))
    return Table(["attribute", *scores], [[name, *(value(record, arm, lambda m, name=name: getattr(m, key).get(name)) for arm in scores)] for name in names])


def localization_table(record: Record, key: str = "localization") -> Table:
    """Localization scores of a MaLP, each cosine similarity beside that of a constant map."""
    header = [
        "generator",
        "CS (Eq. 5)",
        "CS of a constant map",
        "CS (authors' code)",
        "CS of a constant map",
        "Pearson",
        "Pearson of the mean map",
        "PSNR, dB",
        "SSIM",
    ]
    keys = ("cs", "cs_constant", "cs_official", "cs_official_constant", "pearson", "pearson_mean_map", "psnr", "ssim")
    return Table(header, _measured([[arm, *(value(record, arm, lambda m, name=name: getattr(getattr(m, key), name)) for name in keys)] for arm in record.arms]))


def detection_table(record: Record, key: str = "detection") -> Table:
    """Detection scores of a MaLP: manipulated images against encrypted ones."""
    header = ["generator", "accuracy", "equal error rate", "AUC", "average precision"]
    keys = ("accuracy", "eer", "auc", "average_precision")
    return Table(header, _measured([[arm, *(value(record, arm, lambda m, name=name: getattr(getattr(m, key), name)) for name in keys)] for arm in record.arms]))


def seeds_table(record: Record) -> Table:
    """Every seed separately, with its paired bootstrap; empty for a single seed."""
    header = [
        "generator, seed",
        f"{label_of(record)}{sample_count(record)} ↓",
        "minus control",
        "minus before",
        *["edit accuracy ↑"] * edits_attributes(record),
        "mean abs(x - G(x))",
        "Pearson (MaLP)",
    ]
    rows = []
    for arm in record.arms:
        for seed in record.seeds_of[arm] if len(record.seeds) > 1 else []:
            measured = record.per_seed[str(seed)].arms[arm]
            name = arm if arm == "before" else f"{arm}, {seed}"
            against = [delta_text(record.delta_of_seed(seed, arm, other)) for other in ("control", "before")]
            shown = [*[measured.edit_accuracy] * edits_attributes(record), measured.identity_l1, measured.localization.pearson]
            rows.append([name, plain(measured.frechet.value), *against, *map(plain, shown)])
    return Table(header, rows)


def hashes_table(record: Record) -> Table:
    """Hashes of the images and weights that were measured."""
    points = record.reference_points
    rows = [["inputs", "", points.inputs_sha256 or NONE], ["reference", "", points.reference_sha256 or NONE]]
    rows += [["MaLP's templates (public fingerprint)", "", points.key_fingerprint]] if points.key_fingerprint else []
    for arm in record.arms:
        for seed in record.seeds_of[arm]:
            weights = record.per_seed[str(seed)].arms[arm].weights
            name = arm if arm == "before" or len(record.seeds) == 1 else f"{arm}, seed {seed}"
            rows += [[name, weights.file or NONE, weights.sha256[:16]]] if weights.sha256 else []
    return Table(["what", "file", "sha256, first digits"], rows)


def described(record: Record) -> list[str]:
    """Extractor, resize and reference of every distance, the description of every arm, and how intervals were computed."""
    users: dict[str, list[str]] = {}
    for view in VIEWS:
        points = record.reference_points.points(view)
        entries = {arm: measured.distance(view) for arm, measured in record.arms.items()} | {
            words: getattr(points, name) for name, words in _REFERENCE_POINTS.items()
        }
        for name, distance in entries.items():
            if distance.value is not None:
                text = f"{distance.label}, n = {number(distance.n)}: {distance.extractor}; resize: {distance.resize}; "
                text += f"reference: {distance.reference}"
                users.setdefault(text, []).append(name)
    lines = [f"{', '.join(names)}: {text}" for text, names in users.items()]
    lines += [f"{arm}: {ARMS[arm]}" for arm in record.arms]
    boot, seeds = record.bootstrap, record.seeds
    lines.append(
        f"intervals: paired bootstrap, {boot.resamples} resamples, seed {boot.seed}; images and reference are both resampled. "
        "KID: random halves of the rows"
    )
    if len(seeds) > 1:
        lines.append(f"seeds {' '.join(map(str, seeds))}: values are means ± half the 95 % interval of the mean (Student's t)")
    return lines


def _views(record: Record) -> dict[str, str]:
    """Column heading of each view that was measured."""
    measured = [view for view in VIEWS if any(m.distance(view).value is not None for m in record.arms.values())]
    return {view: f"{label_of(record, view)}{sample_count(record, view)}" for view in measured}


def _kid(kid: KernelDistance) -> str:
    return plain(kid.value) + (f" ± {number(kid.std)}" if kid.std is not None else "")


def _measured(rows: list[list[str]]) -> list[list[str]]:
    return [row for row in rows if set(row[1:]) != {NONE}]


def _framed(header: Sequence[str], rows: Sequence[Sequence[str]], frames: int) -> Table:
    return Table(header, rows, frozenset(range(len(rows) - frames, len(rows))))
