"""Saving and loading of a `KeyedMaLP`: ``model.safetensors`` and ``config.json``, which anyone may have, and ``secret.safetensors``, the owner's."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor

from malp_disc.calibration import CALIBRATION_FILE
from malp_disc.hub import GIVE_KEY, KEYED_MODEL_TYPE, MaLPHubMixin, find_file
from malp_disc.keyed.config import KeyedConfig
from malp_disc.keyed.secret import SECRET_FILE, load_secret, save_secret, secret_fingerprint
from malp_disc.serialization.files import CONFIG_FILE, WEIGHTS_FILE, write_json
from malp_disc.serialization.reading import read_json
from malp_disc.serialization.state_dicts import fingerprint, load_state, load_tensors, save_tensors
from malp_disc.serialization.typed_json import from_settings

Model = TypeVar("Model", bound="KeyedHubMixin")


class KeyedHubMixin(MaLPHubMixin):
    """Mixin of `KeyedMaLP`. The weights work with any key, so a detector can be published, and every owner has a key of their own."""

    key_file = SECRET_FILE

    @property
    def key_fingerprint(self) -> str:
        """Public identifier of the key, which doesn't reveal it: 16 hex digits."""
        return secret_fingerprint(self.secret)

    @property
    def detector_fingerprint(self) -> str:
        """Identifier of weights and key together: 16 hex digits."""
        return hashlib.sha256(f"{fingerprint(self.state_dict())} {self.key_fingerprint}".encode()).hexdigest()[:16]

    def _save_key(self, path: Path) -> None:
        save_secret(path, self.secret, grid=self.config.image_size)

    def calibration_file(self, *, own_key: bool = True) -> str:
        """``detection.json``; for a key that isn't the folder's own ``detection-<fingerprint>.json``, so that several keys of one detector have a threshold each."""
        return CALIBRATION_FILE if own_key else f"{Path(CALIBRATION_FILE).stem}-{self.key_fingerprint}.json"

    def _save_pretrained(self, save_directory: Path) -> None:
        folder = Path(save_directory)
        save_tensors(folder / WEIGHTS_FILE, self.state_dict())
        write_json(folder / CONFIG_FILE, {"model_type": KEYED_MODEL_TYPE, **dataclasses.asdict(self.config)})
        self._save_detection(folder)

    @classmethod
    def _from_pretrained(
        cls: type[Model], *, model_id: str, key: str | Path | bytes | None = None, backbone_weights: str | Path | None = None, **options: Any
    ) -> Model:
        hub = {name: options.get(name) for name in ("revision", "cache_dir", "force_download", "local_files_only", "token")}
        content = read_json(find_file(model_id, CONFIG_FILE, **hub), what="a MaLP's config.json, as save_pretrained writes it")
        known = {field.name for field in dataclasses.fields(KeyedConfig)}
        if content.get("model_type") != KEYED_MODEL_TYPE:
            raise ValueError(f"{model_id}/{CONFIG_FILE} is not a MaLP with keyed templates: its model_type is {content.get('model_type')!r}, expected {KEYED_MODEL_TYPE!r}")
        if unknown := sorted(set(content) - known - {"model_type"}):
            raise ValueError(f"{model_id}/{CONFIG_FILE} has settings that this version doesn't know, {', '.join(unknown)}; update malp-disc, since a newer version saved it")
        content = {"scheme": 1, **content}  # the first files had no number
        settings = from_settings(KeyedConfig, {name: value for name, value in content.items() if name in known}, f"{model_id}/{CONFIG_FILE}")
        try:
            secret = key if isinstance(key, bytes) else load_secret(find_file(model_id, SECRET_FILE, **hub) if key is None else key, grid=settings.image_size)
        except (FileNotFoundError, EntryNotFoundError) as error:
            raise FileNotFoundError(
                f"{model_id} comes without a key {SECRET_FILE}; give the path of the owner's ({GIVE_KEY}), or make one of your own: malp-disc key OUT --malp {model_id}"
            ) from error
        malp = cls(settings, secret=secret)
        weights = load_tensors(find_file(model_id, WEIGHTS_FILE, **hub))
        _check_version(weights, malp.state_dict(), model_id)
        load_state(malp, weights, source=model_id)
        malp.load_detection(functools.partial(find_file, model_id, **hub), model_id)
        return malp.eval()


def _check_version(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], model_id: str) -> None:
    """Raise ValueError for a network of an earlier version, whose score had fewer inputs."""
    layer = "cnn.classifier.0.weight"
    if layer in weights and weights[layer].ndim == 2 and weights[layer].shape[1] < own[layer].shape[1]:
        raise ValueError(
            f"{model_id} was trained by an earlier version, whose network saw less; take a newer detector with its key (the templates are the same): pretrain again into a "
            f"folder that has the key as malp/{SECRET_FILE}, or give the key of {model_id} as --key with weights/survive"
        )
