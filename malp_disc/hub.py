"""Saving and loading: a MaLP is a folder with ``model.safetensors``, ``config.json``, a model card, its key and, once calibrated, ``detection.json``, here or on the Hub."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from torch import Tensor

from malp_disc import __version__
from malp_disc.calibration import CALIBRATION_FILE, Calibration
from malp_disc.config import MaLPConfig
from malp_disc.serialization.files import CONFIG_FILE, WEIGHTS_FILE, write_json
from malp_disc.serialization.key import KEY_FILE, key_fingerprint, load_key, save_key
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint, load_state, load_tensors, save_tensors
from malp_disc.serialization.typed_json import from_settings

MODEL_TYPE, KEYED_MODEL_TYPE = "malp", "malp-keyed"
"""The entry `model_type` of config.json, of a `MaLP` and of a `KeyedMaLP`."""
_KEY_ENTRY = "encryption.templates"  # in the state dict; saved in a file of its own
_BRANCH = "branch."  # what the second branch's entries of the state dict begin with
_HUB_OPTIONS = {name for name, option in inspect.signature(ModelHubMixin.from_pretrained).parameters.items() if option.kind is option.KEYWORD_ONLY}
GIVE_KEY = "--key FILE on the command line, key=… in Python"
_CARD = """
---
{{ card_data }}
---

# {{ model }}: was an image manipulated, and where?

A detector of [MaLP](https://arxiv.org/abs/2303.16976) (CVPR 2023), saved by the Python package malp-disc {{ version }}:

```python
from malp_disc import {{ model }}

malp = {{ model }}.from_pretrained("FOLDER_OR_HUB_ID", key="{{ key_file }}")
```

Its key, `{{ key_file }}`, is a file of its own, which `push_to_hub` leaves out by default. Whoever has the key can forge and remove templates.

**Terms of use** aren't stated here unless the header above names a licence. They depend on the images and on the weights that this detector was trained from: one that was trained
on data for research only, or from such a checkpoint, is for research only too.
"""
logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound="MaLPHubMixin")


class OtherModelError(ValueError):
    """A saved model of another kind than the class that was asked to load it; `model_type` is the one in its config.json."""

    def __init__(self, config: str, model_type: object) -> None:
        self.model_type = model_type
        loader = "; load it with KeyedMaLP.from_pretrained" if model_type == KEYED_MODEL_TYPE else ""
        super().__init__(f"{config} is not a MaLP of this version: its model_type is {model_type!r}{loader}")


class MaLPHubMixin(ModelHubMixin):
    """Mixin of `MaLP` for saving and loading. It needs `config`, `encryption` and a module's state dict."""

    key_file = KEY_FILE

    detection: Calibration | None = None
    """The threshold of `malp-disc detect` for the current weights. It is saved with them, and discarded once they have changed."""

    left_out: Mapping[str, Tensor] = types.MappingProxyType({})
    """The second branch's weights, if it wasn't loaded. They are a part of `detector_fingerprint`."""

    @property
    def threshold(self) -> float:
        """The score above which an image counts as manipulated: that of `detection`, or 0.5 without a calibration."""
        return 0.5 if self.detection is None else self.detection.threshold

    @property
    def key_fingerprint(self) -> str:
        """Public identifier of the template set, which doesn't reveal it: 16 hex digits (`malp_disc.serialization.key`)."""
        return key_fingerprint(self.encryption.templates)

    @property
    def detector_fingerprint(self) -> str:
        """Identifier of weights and key together: 16 hex digits."""
        return fingerprint(self.left_out | self.state_dict())

    @classmethod
    def from_pretrained(
        cls: type[Model], pretrained_model_name_or_path: str | Path, *, key: str | Path | bytes | None = None, backbone_weights: str | Path | None = None, branch: bool = True,
        **options: Any,
    ) -> Model:  # fmt: skip
        """A saved MaLP: a folder of `save_pretrained`, or the id of a Hub repository.

        Args:
            key: key file; by default ``templates.safetensors`` next to the weights. It must be the key that the detector was saved with. A `KeyedMaLP` works with any
                key: ``secret.safetensors`` by default, a file, or 32 bytes.
            backbone_weights: weights of a pretrained second branch's backbone, which aren't saved with MaLP; by default as
                `malp_disc.backbones.create_backbone` finds them.
            branch: False leaves out the second branch, which localizing and detecting don't use, so that the weights of its backbone aren't needed. Such a MaLP can't be
                saved.
            options: of `huggingface_hub.ModelHubMixin.from_pretrained`: revision, token, cache_dir and so on.

        Raises:
            FileNotFoundError: the folder doesn't exist, has no MaLP, or has no key.
            ValueError: a damaged or foreign file, or another detector's key.
            TypeError: an unknown option.
        """
        if unknown := sorted(set(options) - _HUB_OPTIONS):
            raise TypeError(f"{cls.__name__}.from_pretrained got {', '.join(unknown)}; expected options out of key, backbone_weights, branch, {', '.join(sorted(_HUB_OPTIONS))}")
        options |= {} if branch else {"branch": False}
        name = str(Path(pretrained_model_name_or_path).expanduser()) if str(pretrained_model_name_or_path).startswith("~") else str(pretrained_model_name_or_path).rstrip("/\\")
        if not name:
            raise FileNotFoundError("got an empty name; give a folder written by save_pretrained, or a Hub id of the form owner/name")
        if Path(name).is_file():
            raise FileNotFoundError(f"{name} is a file; give the folder that save_pretrained wrote, {Path(name).parent}")
        path_only = name.count("/") != 1 or name.startswith((".", "/")) or Path(name).parent.is_dir()
        if not Path(name).is_dir() and path_only:
            raise FileNotFoundError(f"no folder {name} (current folder: {Path.cwd()}); give a folder written by save_pretrained, or a Hub id of the form owner/name")
        if Path(name).is_dir():
            _read_config(find_file(name, CONFIG_FILE))  # read first, because huggingface_hub's errors don't name the file, and it logs one that is missing
            return super().from_pretrained(name, key=key, backbone_weights=backbone_weights, **options)
        logger.warning("no folder %s (current folder: %s): looking for it on the Hugging Face Hub", name, Path.cwd())  # which takes half a minute without internet
        try:
            return super().from_pretrained(name, key=key, backbone_weights=backbone_weights, **options)
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, ConnectionError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise FileNotFoundError(
                f"no folder {name} in {Path.cwd()}, and as a Hub repository {name} can't be loaded ({reason}); give a folder written by save_pretrained, or the id of a "
                "repository that you can reach"
            ) from error

    def save_pretrained(self, save_directory: str | Path, *, key: str | Path | None = None, **options: Any) -> str | None:
        """Write ``model.safetensors`` (the detector), ``config.json``, a model card ``README.md`` if there is none, and the key as ``templates.safetensors``, or to the path
        `key` elsewhere.

        With ``push_to_hub=True`` the key stays here; see `push_to_hub`.

        Raises:
            ValueError: a MaLP that was loaded without its second branch; the folder is unchanged.
        """
        if self.left_out:
            raise ValueError("this MaLP was loaded without its second branch (branch=False), which a saved one has to keep; load the whole one to save it")
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self._save_key(Path(save_directory) / self.key_file if key is None else Path(key))
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id: str, *, include_key: bool = False, ignore_patterns: list[str] | str | None = None, **options: Any) -> str:
        """Upload to the Hub as huggingface_hub's mixin does, but without the key unless `include_key`.

        The model card names no licence unless you give one, ``model_card_kwargs={"license": "cc-by-4.0"}``: it depends on the images that the MaLP was trained on.
        """
        ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns or ())
        return super().push_to_hub(repo_id, ignore_patterns=ignored if include_key else [*ignored, self.key_file], **options)

    def generate_model_card(self, *, license: str | None = None, **values: Any) -> ModelCard:
        """The README.md of a saved MaLP. Its weights may be under other terms than this package, so only a `license` that is given is named."""
        known = {name: value for name, value in self._hub_mixin_info.model_card_data.to_dict().items() if name != "license"}
        data = ModelCardData(**known, **({} if license is None else {"license": license}))
        return ModelCard.from_template(data, template_str=_CARD, model=type(self).__name__, version=__version__, key_file=self.key_file, **values)

    def _save_key(self, path: Path) -> None:
        save_key(path, self.encryption.templates)

    def _save_pretrained(self, save_directory: Path) -> None:
        detector = {name: value for name, value in self.state_dict().items() if name != _KEY_ENTRY}
        save_tensors(Path(save_directory) / WEIGHTS_FILE, detector)
        write_json(Path(save_directory) / CONFIG_FILE, {"model_type": MODEL_TYPE, "key_fingerprint": self.key_fingerprint, **dataclasses.asdict(self.config)})
        self._save_detection(Path(save_directory))

    def calibration_file(self, *, own_key: bool = True) -> str:
        """Name of the threshold's file in the MaLP's folder. `own_key` says whether the key is that folder's; a MaLP with learned templates works with no other."""
        return CALIBRATION_FILE

    def _save_detection(self, folder: Path) -> None:
        if self.detection is not None and self.detection.detector == self.detector_fingerprint:
            self.detection.write(folder / CALIBRATION_FILE)
        else:
            (folder / CALIBRATION_FILE).unlink(missing_ok=True)  # of other weights

    def load_detection(self, find: Callable[[str], Path], source: str) -> None:
        """Take the threshold that was set for these weights and this key, if `find` finds its file; warn of one that was set for others."""
        foreign = None
        for name in dict.fromkeys(self.calibration_file(own_key=own) for own in (False, True)):
            with contextlib.suppress(FileNotFoundError, EntryNotFoundError):
                detection = Calibration.read(find(name))
                if detection.detector == self.detector_fingerprint:
                    self.detection = detection
                    return
                foreign = name
        if foreign is not None:
            logger.warning("%s/%s was made for other weights or another key and is left alone; calibrate again with malp-disc detect --calibrate", source, foreign)

    @classmethod
    def _from_pretrained(
        cls: type[Model],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: Any,
        force_download: bool,
        local_files_only: bool,
        token: Any,
        key: Path | None = None,
        backbone_weights: str | Path | None = None,
        branch: bool = True,
        **_: Any,
    ) -> Model:
        find = functools.partial(
            find_file, model_id, revision=revision, cache_dir=cache_dir, force_download=force_download, local_files_only=local_files_only, token=token
        )
        content = _read_config(find(CONFIG_FILE))
        known = {field.name for field in dataclasses.fields(MaLPConfig)}
        surplus = sorted(set(content) - known - {"model_type", "key_fingerprint"})
        if content.get("model_type") not in (None, MODEL_TYPE):
            raise OtherModelError(f"{model_id}/{CONFIG_FILE}", content["model_type"])
        if content.get("model_type") is None and "command" in content:
            raise FileNotFoundError(_no_model(model_id, f"{CONFIG_FILE} is that of a run"))
        if content.get("model_type") is None or surplus:
            raise ValueError(f"{model_id}/{CONFIG_FILE} is not a MaLP of this version" + (f": unknown entries {surplus}" if surplus else ""))
        settings = from_settings(MaLPConfig, {name: value for name, value in content.items() if name in known}, f"{model_id}/{CONFIG_FILE}")
        weights, left_out = load_tensors(find(WEIGHTS_FILE)), {}
        if not branch:
            settings = settings.without_branch()
            left_out = {name: weights.pop(name) for name in list(weights) if name.startswith(_BRANCH)}
        malp = cls(settings, backbone_weights=backbone_weights)
        try:
            key = find(KEY_FILE) if key is None else key
        except (FileNotFoundError, EntryNotFoundError) as error:
            raise FileNotFoundError(f"{model_id} comes without its key {KEY_FILE}; give its path: {GIVE_KEY}") from error
        templates = load_key(key, shape=malp.encryption.templates.shape, expected=content.get("key_fingerprint"))
        load_state(malp, {**weights, _KEY_ENTRY: templates}, source=model_id)
        malp.left_out = {name: value.float() if value.is_floating_point() else value for name, value in left_out.items()}
        malp.load_detection(find, model_id)
        return malp.eval()


def find_file(model_id: str, name: str, **options: Any) -> Path:
    """A file of a saved MaLP, in a folder or from the Hub, to which `options` belong.

    Raises:
        FileNotFoundError: the folder doesn't have it.
    """
    local = Path(model_id) / name
    if local.is_file():
        return local
    if Path(model_id).is_dir():
        raise FileNotFoundError(_no_model(model_id, f"{name} is missing"))
    return Path(hf_hub_download(model_id, name, **options))


def _no_model(folder: str, reason: str) -> str:
    """The error for a folder that isn't a saved MaLP's, with the sub-folder that is, if there is one."""
    inside = sorted(path.parent for path in Path(folder).glob(f"*/{WEIGHTS_FILE}"))
    hint = f"; did you mean {inside[0]}?" if inside else ""
    return f"{folder} holds no saved MaLP: expected {CONFIG_FILE} and {WEIGHTS_FILE}, as save_pretrained writes them, {reason}{hint}"


def _read_config(path: Path) -> dict[str, Any]:
    """Raises ValueError for anything but a JSON object."""
    return read_json(path, what="a MaLP's config.json, as save_pretrained writes it")
