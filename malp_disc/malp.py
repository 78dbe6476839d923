"""MaLP: manipulation localization using a proactive scheme (Asnani, Yin, Hassner, Liu, CVPR 2023), all modules in one network."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from malp_disc.checkpoint import load_state, load_tensors, save_tensors, write_json
from malp_disc.detection import MapClassifier, manipulation_score, template_similarity
from malp_disc.encryption import NO_TEMPLATE, PAPER_TEMPLATE_SIZE, Encryption
from malp_disc.fakeness import check_images
from malp_disc.key import KEY_FILE, key_fingerprint, load_key, save_key
from malp_disc.localization import GlobalTransformer, ShallowCNN
from malp_disc.losses import (
    LossWeights,
    MaLPLosses,
    classification_loss,
    localization_loss_encrypted,
    localization_loss_manipulated,
    recovery_loss,
    template_loss,
)

_WEIGHTS_FILE, _CONFIG_FILE = "model.safetensors", "config.json"
_KEY_ENTRY = "encryption.templates"  # in the state dict; saved in a file of its own


@dataclass(frozen=True, kw_only=True)
class MaLPConfig:
    """What a MaLP is made of.

    Attributes:
        image_size: side of the training pictures. The CNN takes any size; templates are resampled to it.
        set_size: n, templates in the set (paper: 1 in its main tables).
        strength: m of Eq. 6 (paper: 0.3); 0 makes a passive detector.
        architecture: "paper".
        width: channels of the shallow CNN (64 in the authors' code; less is faster).
        transformer: train with the second branch E_T.
        template_size: side of the templates; the smaller of `image_size` and the paper's 128 if None.
    """

    image_size: int = 128
    set_size: int = 1
    strength: float = 0.3
    architecture: str = "paper"
    width: int = 64
    transformer: bool = True
    template_size: int | None = None

    def __post_init__(self) -> None:
        if self.architecture != "paper":
            raise ValueError(f"unknown architecture {self.architecture!r}; this version has 'paper'")
        if self.image_size < 16:
            raise ValueError(f"expected an image size of at least 16, got {self.image_size}")
        if self.transformer and self.image_size % 8:
            raise ValueError(f"the transformer branch cuts pictures into 8x8 patches: expected an image size divisible by 8, got {self.image_size}; or transformer=False")
        if self.width < 4 or self.width % max(1, self.width // 8):
            raise ValueError(f"expected a width of at least 4, best a multiple of 8 (channels are normed in groups of 8), got {self.width}")


@dataclass
class MaLPOutput:
    """What MaLP sees in a batch of pictures.

    Attributes:
        map: predicted fakeness map M̂ of E_C, (B, 1, H, W) in [0, 1]; 0 is untouched.
        template: recovered template S_R, (B, 1, H, W).
        logit: of the classifier C on the map, (B,), positive for "manipulated".
        similarity: largest CS(S_i, S_R) over the set, (B,) in [-1, 1]; means nothing for a passive detector.
        score: P(manipulated) from both witnesses, (B,) in [0, 1] (the bracket of Eq. 10).
        transformer_map: M̂ of E_T, or None where that branch is off.
    """

    map: Tensor
    template: Tensor
    logit: Tensor
    similarity: Tensor
    score: Tensor
    transformer_map: Tensor | None = None


class MaLP(nn.Module, ModelHubMixin, library_name="malp-disc", license="mit", paper_url="https://arxiv.org/abs/2303.16976", tags=["manipulation-localization", "gan"]):
    """Encryption, localization and detection. All arithmetic is float32, whatever autocast surrounds it.

    Example:
        >>> malp = MaLP(MaLPConfig(image_size=64, width=16, transformer=False))
        >>> images = torch.zeros(2, 3, 64, 64)
        >>> encrypted, index = malp.encrypt(images)
        >>> malp(encrypted).map.shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(self, config: MaLPConfig | dict[str, Any] | None = None) -> None:
        super().__init__()
        if isinstance(config, dict):
            config = MaLPConfig(**config)
        self.config = config or MaLPConfig()
        size = self.config.template_size or min(self.config.image_size, PAPER_TEMPLATE_SIZE)
        self.encryption = Encryption(self.config.set_size, template_size=size, strength=self.config.strength)
        self.cnn = ShallowCNN(self.config.width)
        self.transformer = GlobalTransformer(self.config.image_size) if self.config.transformer else None
        self.classifier = MapClassifier()

    @property
    def passive(self) -> bool:
        """True where no template is added: localization without protection, the paper's baseline."""
        return self.config.strength == 0

    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """T(I), Eq. 6: pictures with a template added, and which.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            index: (B,) long, the templates to add (-1 for none); drawn at random if None.
            generator: where the draw comes from.

        Returns:
            Encrypted images, clamped to [-1, 1], and the index (B,).
        """
        if index is None:
            index = self.encryption.draw(len(images), generator)
        index = self.encryption.check_index(index, len(images))
        with torch.autocast(images.device.type, enabled=False):
            return self.encryption(images, index), index

    def forward(self, images: Tensor, *, transformer: bool = False) -> MaLPOutput:
        """See `MaLPOutput`. `transformer` also runs the second branch, which serves in training only.

        Raises:
            ValueError: wrong shape or range, or no second branch to run.
        """
        check_images(images)
        if transformer and self.transformer is None:
            raise ValueError("this MaLP was made with transformer=False and has no second branch")
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            maps, template = self.cnn(images)
            logit = self.classifier(maps)
            similarity = template_similarity(template, self.encryption.at(images.shape[2:])).amax(dim=1)
            score = manipulation_score(logit, similarity, not self.passive)
            second = self.transformer(images) if transformer else None
        return MaLPOutput(maps, template, logit, similarity, score, second)

    def losses(self, encrypted: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, weights: LossWeights | None = None) -> MaLPLosses:
        """J = J_T + J_R + J_C + J_L, Eq. 11, from one forward pass over both halves.

        Args:
            encrypted: T(I), (B, 3, H, W) in [-1, 1], as `encrypt` returned it (gradients reach the templates through it).
            manipulated: G(T(I)), same shape; its gradient isn't needed.
            truth: M_GT of Eq. 5, (B, 1, H, W) in [0, 1].
            index: (B,), as `encrypt` returned it.
            weights: λ1 … λ10.
        """
        weights = weights or LossWeights()
        count = len(encrypted)
        with torch.autocast(encrypted.device.type, enabled=False):
            out = self(torch.cat([encrypted.float(), manipulated.float()]), transformer=self.transformer is not None)
            localization = torch.zeros((), device=encrypted.device)
            for maps in (out.map, out.transformer_map):
                if maps is not None:
                    localization = localization + localization_loss_encrypted(maps[:count], truth, weights)
                    localization = localization + localization_loss_manipulated(maps[count:], truth, weights)
            manipulated_label = torch.cat([torch.zeros_like(out.logit[:count]), torch.ones_like(out.logit[count:])])
            kept = (index != NO_TEMPLATE).to(out.logit.device)  # without a template neither a picture nor its manipulated partner can show one
            expected = torch.cat([kept, kept]) & (not self.passive)
            classification = classification_loss(out.logit, out.similarity, manipulated_label, expected, weights)
            if self.passive:
                unused = 0.0 * (self.encryption.templates.sum() + out.template.sum())  # every parameter takes part: DDP insists
                template, recovery = unused, torch.zeros_like(unused)
            else:
                template = template_loss(self.encryption.templates, weights)
                templates = self.encryption.at(encrypted.shape[2:])
                recovery = recovery_loss(out.template[:count], out.template[count:], templates, index, weights)
        return MaLPLosses(template + recovery + classification + localization, template, localization, recovery, classification)

    @property
    def key_fingerprint(self) -> str:
        """Names the template set in public without giving it away: 16 hex digits (`malp_disc.key`)."""
        return key_fingerprint(self.encryption.templates)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, key: str | Path | None = None, **options: Any) -> MaLP:
        """A saved MaLP: a folder of `save_pretrained`, or the id of a Hub repository.

        Args:
            key: the key file, where it isn't ``templates.safetensors`` beside the weights. It must be the key that the detector was saved with.

        Raises:
            FileNotFoundError: something that can only be a path, and nothing there; a folder without a MaLP; or no key.
            ValueError: a damaged or foreign file, or another detector's key.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise FileNotFoundError(f"no folder {name}; give a folder written by save_pretrained, or a Hub id of the form owner/name")
        return super().from_pretrained(name, key=key, **options)

    def save_pretrained(self, save_directory: str | Path, *, key: str | Path | None = None, **options: Any) -> str | None:
        """Write ``model.safetensors`` (the detector), ``config.json``, and the key as ``templates.safetensors``, or to the path `key` elsewhere.

        With ``push_to_hub=True`` the key stays here; see `push_to_hub`.
        """
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        save_key(key if key is not None else Path(save_directory) / KEY_FILE, self.encryption.templates)
        return super().save_pretrained(save_directory, **options)

    def push_to_hub(self, repo_id: str, *, include_key: bool = False, ignore_patterns: list[str] | str | None = None, **options: Any) -> str:
        """Upload to the Hub as huggingface_hub's mixin does, but without the key unless `include_key`."""
        ignored = [ignore_patterns] if isinstance(ignore_patterns, str) else list(ignore_patterns or ())
        return super().push_to_hub(repo_id, ignore_patterns=ignored if include_key else [*ignored, KEY_FILE], **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        detector = {name: value for name, value in self.state_dict().items() if name != _KEY_ENTRY}
        save_tensors(Path(save_directory) / _WEIGHTS_FILE, detector)
        write_json(Path(save_directory) / _CONFIG_FILE, {"model_type": "malp", "key_fingerprint": self.key_fingerprint, **dataclasses.asdict(self.config)})

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: Any, force_download: bool, local_files_only: bool, token: Any, key: Path | None = None, **_: Any
    ) -> MaLP:
        def find(name: str) -> Path:
            local = Path(model_id) / name
            if local.is_file():
                return local
            if Path(model_id).is_dir():
                raise FileNotFoundError(f"{model_id} holds no saved MaLP: expected {_CONFIG_FILE} and {_WEIGHTS_FILE}, as save_pretrained writes them")
            download = hf_hub_download(
                model_id, name, revision=revision, cache_dir=cache_dir, force_download=force_download, local_files_only=local_files_only, token=token
            )
            return Path(download)

        content = json.loads(find(_CONFIG_FILE).read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(MaLPConfig)}
        surplus = sorted(set(content) - known - {"model_type", "key_fingerprint"})
        if content.get("model_type") != "malp" or surplus:
            raise ValueError(f"{model_id}/{_CONFIG_FILE} is not a MaLP of this version" + (f": unknown entries {surplus}" if surplus else ""))
        malp = cls(MaLPConfig(**{key: value for key, value in content.items() if key in known}))
        weights = load_tensors(find(_WEIGHTS_FILE))
        try:
            key = find(KEY_FILE) if key is None else key
        except (FileNotFoundError, EntryNotFoundError) as error:
            raise FileNotFoundError(f"{model_id} comes without its key {KEY_FILE}; give its path as key=…") from error
        templates = load_key(key, shape=malp.encryption.templates.shape, expected=content.get("key_fingerprint"))
        load_state(malp, {**weights, _KEY_ENTRY: templates}, source=model_id)
        return malp
