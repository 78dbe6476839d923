"""The documentation is right about the repository: links, anchors, files, modules and messages that it names exist."""

from __future__ import annotations

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.tiny import sample_images

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(REPOSITORY)
    for pattern in ("*.md", "docs/**/*.md", "generators/*.md", "weights/**/*.md", "malp_disc/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
TOP_FOLDERS = ("benchmarks", "docs", "generators", "malp_disc", "recipes", "tests", "weights")
FOR_RESEARCH = () if (REPOSITORY / "weights" / "survive" / "model.safetensors").exists() else ("weights/celeba64/", "weights/survive/")  # not in the source distribution
EXAMPLE_FILES = re.compile(r"(my_\w+|module|torch|translate)\.py")  # a user's own


def text_of(page: Path) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@cache
def anchors(page: Path) -> set[str]:
    """GitHub's: lower case, punctuation dropped, spaces as hyphens, repeated headings numbered."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S), flags=re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    return {slug if number == 0 else f"{slug}-{number}" for slug, count in found.items() for number in range(count)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_and_anchor_exists(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / page.parent / path).resolve() if path else REPOSITORY / page
        if not file.exists() or (anchor and anchor not in anchors(file.relative_to(REPOSITORY))):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_file_of_the_repository_that_is_named_exists(page):
    in_folders = re.findall(rf"(?<![\w/.-])(?:{'|'.join(TOP_FOLDERS)})/[\w./-]*\w", text_of(page))
    alone = [span for span in code_spans(text_of(page)) if re.fullmatch(r"\w+\.py", span) and not EXAMPLE_FILES.fullmatch(span)]
    missing = [name for name in in_folders if not name.startswith(FOR_RESEARCH) and not (REPOSITORY / name).exists() and not (REPOSITORY / page.parent / name).exists()]
    missing += [name for name in alone if not any(REPOSITORY.glob(f"*/**/{name}"))]
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_module_and_name_of_the_package_that_is_mentioned_can_be_imported(page):
    text = text_of(page)
    for dotted in {*re.findall(r"(?<![\w/.-])malp_disc(?:\.[A-Za-z_]\w*)+", text), *re.findall(r"^::: (\S+)", text, flags=re.M)}:
        resolve(dotted)
    for module, names in re.findall(r"^from ((?:malp_disc|generators)[\w.]*) import ([\w, ]+)", text, flags=re.M):
        for name in names.split(", "):
            resolve(f"{module}.{name}")


@pytest.mark.parametrize("package", ["malp_disc", "malp_disc.data", "malp_disc.keyed", "malp_disc.metrics"])
def test_every_name_that_a_package_exports_is_in_the_api_reference(package):
    listed = {name for page in PAGES if page.parent == Path("docs/api") for name in re.findall(r"^::: (\S+)", text_of(page), flags=re.M)}
    module = importlib.import_module(package)
    exported = {name: getattr(module, name) for name in module.__all__}
    sources = {name: getattr(value, "__module__", package) for name, value in exported.items()}
    assert [name for name, source in sources.items() if not {source, f"{source}.{name}", package} & listed] == []


OTHER_TOOLS_FLAGS = {"config-file", "machine-rank", "main-process-ip", "nproc-per-node", "standalone"}  # of accelerate launch and torchrun


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_every_flag_that_is_mentioned_is_one_of_a_command(page):
    flags = {flag.replace("_", "-") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", text_of(page))} - OTHER_TOOLS_FLAGS
    assert not {flag for flag in flags if not {flag.replace("-", "_"), flag.removeprefix("no-").replace("-", "_")} & identifiers()}


@cache
def identifiers() -> set[str]:
    return {name for path in source_files() for name in re.findall(r"[a-z]\w*", path.read_text(encoding="utf-8"))}


NOT_IN_ONE_STRING = ("does not have a deterministic implementation", "Input type (float)", "manipulate returns a tuple")  # torch's, and one made of parts


def test_every_message_on_the_troubleshooting_page_is_one_that_the_code_prints():
    """At least three consecutive words of it stand in one string of the code, where ``{}`` takes a value."""
    rows = re.findall(r"^\| (`.+?) \| ", text_of(Path("docs/troubleshooting.md")), flags=re.M)
    messages = [span for row in rows for span in re.findall(r"`([^`]+)`", row) if len(words(span)) >= 4 and not any(part in span for part in NOT_IN_ONE_STRING)]
    assert len(messages) > 70
    printed = {run for text in printed_texts() for run in runs(text)}
    assert not [message for message in messages if not runs(message) & printed]


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z][\w']*", text)


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return set(zip(found, found[1:], found[2:]))


def source_files() -> list[Path]:
    return [path for package in ("malp_disc", "generators", "recipes") for path in (REPOSITORY / package).rglob("*.py")]


def printed_texts() -> list[str]:
    """Every string of the code but the docstrings, f-strings with ``{}`` for their values."""
    texts = []
    for path in source_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.append(node.value)
    return texts


def test_the_loop_of_the_readme_trains_the_generator_and_the_heads_alone(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    torch.manual_seed(0)
    images = sample_images(2, 64, 64)
    generator = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Tanh())
    names = {"torch": torch, "loader": [images], "generator": generator, "g_optimizer": torch.optim.SGD(generator.parameters(), 1e-2), "images": images, "found": images}
    names["own_losses"] = lambda fake, images: (fake - images).square().mean()
    start = generator[0].weight.clone()
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(Path("README.md")), flags=re.M | re.S)
    exec(blocks[0].replace("optimizer.zero_grad()", "learned = [name for name, p in disc.named_parameters() if p.grad is not None]; optimizer.zero_grad()", 1), names)
    assert not torch.equal(generator[0].weight, start) and torch.equal(names["encrypted"], images)
    assert names["learned"] and all(name.startswith("malp.branch.") for name in names["learned"])
    exec(blocks[1], names)
    assert names["out"].map.shape == (2, 1, 64, 64) and not torch.equal(names["protected"], images)


RESULTS = {  # by what a row of the README's table links to: the measurements, the fine-tuned arm, the number of seeds
    "horse2zebra.md#the-same-with-fresh-seeds": ("horse2zebra/fresh-seeds.jsonl", "vision_aided", 3),
    "celeba-branch.md#the-same-against-held-out-faces": ("celeba-branch/held-out/measurements.jsonl", "vision_aided", 3),
    "celeba-branch.md#the-same-at-9696-on-other-people": ("celeba-branch/96/measurements.jsonl", "vision_aided", 3),
    "real-faces.md#the-same-with-efficientnet-lite0-the-default-backbone-and-with-both-branches": (
        "real-faces/fast-srgan/lite0-measurements.jsonl",
        "vision_aided",
        3,
    ),
    "faces.md": ("faces/measurements.jsonl", "joint", 6),
}


def test_every_number_of_the_readmes_results_follows_from_the_published_lines():
    """Distances are means over seeds, printed with the digits that the table has; the change is that of the means."""
    rows = re.findall(r"^\| .*\(docs/results/.*\d %.*$", text_of(Path("README.md")), flags=re.M)
    links = [re.search(r"\(docs/results/([^)]+)\)", row).group(1) for row in rows]
    assert sorted(links) == sorted(RESULTS)
    for link, row in zip(links, rows):
        file, arm, seeds = RESULTS[link]
        lines = [json.loads(line) for line in text_of(Path("docs/results", file)).splitlines()]
        values = {name: [line["frechet"]["value"] for line in lines if line["arm"] == name] for name in ("before", "control", arm)}
        means = {name: sum(found) / len(found) for name, found in values.items()}
        images, *printed, change, _ = [cell.strip(" *") for cell in row.strip("| ").split("|")[1:]]
        digits = len(printed[0].partition(".")[2])
        assert (len(values["control"]), len(values[arm])) == (seeds, seeds), link
        assert printed == [f"{mean:,.{digits}f}" for mean in means.values()], link
        assert change == f"{100 * (means[arm] / means['before'] - 1):.0f} %".replace("-", "−"), link
        assert re.findall(r"[\d,]+", images)[:2] == [f"{lines[0]['frechet'][name]:,}" for name in ("n", "reference_n")], link


def resolve(dotted: str) -> object:
    """The module or object of a dotted name; ImportError or AttributeError where there is none."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            value = getattr(value, name)
        return value
    raise ImportError(dotted)
