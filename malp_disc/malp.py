"""MaLP: manipulation localization using a proactive scheme (Asnani, Yin, Hassner, Liu, CVPR 2023), all modules in one network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from malp_disc.config import MaLPConfig
from malp_disc.detection import MapClassifier, manipulation_score, template_similarity
from malp_disc.encryption import NO_TEMPLATE, PAPER_TEMPLATE_SIZE, Encryption
from malp_disc.fakeness import check_batches, check_images
from malp_disc.freezing import Float32Module
from malp_disc.hub import Saved
from malp_disc.localization import GlobalTransformer, ShallowCNN
from malp_disc.losses import (
    LossWeights,
    MaLPLosses,
    check_maps,
    classification_loss,
    localization_loss_encrypted,
    localization_loss_manipulated,
    recovery_loss,
    template_loss,
)
from malp_disc.official.networks import OFFICIAL_STRENGTH, OfficialClassifier, OfficialEncoder, official_similarity, read_official
from malp_disc.official.vit import OfficialViT
from malp_disc.precision import full_precision


@dataclass
class MaLPOutput:
    """What MaLP sees in a batch of images.

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


class MaLP(Float32Module, Saved, library_name="malp-disc", license="mit", paper_url="https://arxiv.org/abs/2303.16976", tags=["manipulation-localization", "gan"]):
    """Encryption, localization and detection, always in float32.

    ``.half()``, ``.bfloat16()``, ``.double()`` and ``.to(dtype)``, on it or on a module that holds it, leave its weights in float32. Images of any floating-point
    dtype are converted on entry, autocast is off inside, and all results are float32; gradients arrive in the images' own dtype.

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
        if self.config.architecture == "official":
            self.cnn = OfficialEncoder()
            self.transformer = OfficialViT(self.config.vit_generation) if self.config.transformer else None
            self.classifier = OfficialClassifier()
            self._similarity = official_similarity
            nn.init.uniform_(self.encryption.templates)  # as theirs start
        else:
            self.cnn = ShallowCNN(self.config.width)
            self.transformer = GlobalTransformer(self.config.image_size) if self.config.transformer else None
            self.classifier = MapClassifier()
            self._similarity = template_similarity
        self.float()  # also under another torch.set_default_dtype

    @property
    def passive(self) -> bool:
        """True where no template is added: localization without protection, the paper's baseline."""
        return self.config.strength == 0

    @property
    def device(self) -> torch.device:
        """Where images have to be."""
        return self.encryption.templates.device

    @full_precision
    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """T(I), Eq. 6: images with a template added, and which.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            index: (B,) long, the templates to add (-1 for none); drawn at random if None.
            generator: where the draw comes from.

        Returns:
            Encrypted images, clamped to [-1, 1], float32, and the index (B,).

        Raises:
            ValueError: wrong shape, range, dtype or device, or an index outside the set.
        """
        check_batches({"images": images}, device=self.device)
        if index is None:
            index = self.encryption.draw(len(images), generator)
        index = self.encryption.check_index(index, len(images))
        return self.encryption(images, index), index

    @full_precision
    def forward(self, images: Tensor, *, transformer: bool = False) -> MaLPOutput:
        """See `MaLPOutput`. `transformer` also runs the second branch, which serves in training only.

        Raises:
            ValueError: wrong shape, range, dtype or device, or no second branch to run.
        """
        check_batches({"images": images}, device=self.device)
        check_images(images)
        return self._seen(images, transformer=transformer)

    def _seen(self, images: Tensor, *, transformer: bool) -> MaLPOutput:
        """`forward`, of images that have been checked."""
        self.check_weights()
        if transformer and self.transformer is None:
            raise ValueError("this MaLP was made with transformer=False and has no second branch")
        images = images.float()
        maps, template = self.cnn(images)
        logit = self.classifier(maps)
        similarity = self._similarity(template, self.encryption.at(images.shape[2:])).amax(dim=1)
        score = manipulation_score(logit, similarity, not self.passive)
        second = self.transformer(images) if transformer else None
        return MaLPOutput(maps.clamp(0, 1), template, logit, similarity, score, second)  # the authors' map has no upper bound

    def similarities(self, recovered: Tensor, templates: Tensor) -> Tensor:
        """CS of every recovered template with every one of `templates`, as this architecture measures it: (B, 1, H, W) × (n, 1, H, W) -> (B, n)."""
        return self._similarity(recovered, templates)

    @full_precision
    def losses(self, encrypted: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, weights: LossWeights | None = None) -> MaLPLosses:
        """J = J_T + J_R + J_C + J_L, Eq. 11, from one forward pass over both halves.

        Args:
            encrypted: T(I), (B, 3, H, W) in [-1, 1], as `encrypt` returned it (gradients reach the templates through it).
            manipulated: G(T(I)), same shape; its gradient isn't needed.
            truth: M_GT of Eq. 5, (B, 1, H, W) in [0, 1].
            index: (B,), as `encrypt` returned it.
            weights: λ1 … λ10.

        Raises:
            ValueError: no images; wrong shapes, ranges, dtypes or devices; or an index outside the set.
        """
        weights = weights or LossWeights()
        check_batches({"encrypted": encrypted, "manipulated": manipulated}, device=self.device, nonempty=True)
        check_images(encrypted, "encrypted")
        check_images(manipulated, "manipulated")
        check_maps(truth, like=encrypted)
        count = len(encrypted)
        index = self.encryption.check_index(index, count)
        out = self._seen(torch.cat([encrypted.float(), manipulated.float()]), transformer=self.transformer is not None)
        localization = torch.zeros((), device=encrypted.device)
        for maps in (out.map, out.transformer_map):
            if maps is not None:
                localization = localization + localization_loss_encrypted(maps[:count], truth, weights)
                localization = localization + localization_loss_manipulated(maps[count:], truth, weights)
        manipulated_label = torch.cat([torch.zeros_like(out.logit[:count]), torch.ones_like(out.logit[count:])])
        kept = index != NO_TEMPLATE  # without a template neither an image nor its manipulated partner can show one
        expected = torch.cat([kept, kept]) & (not self.passive)
        classification = classification_loss(out.logit, out.similarity, manipulated_label, expected, weights)
        if self.passive:
            unused = 0.0 * (self.encryption.templates.sum() + out.template.sum())  # every parameter takes part: DDP insists
            template, recovery = unused, torch.zeros_like(unused)
        else:
            template = template_loss(self.encryption.templates, weights)
            templates = self.encryption.at(encrypted.shape[2:])
            recovery = recovery_loss(out.template[:count], out.template[count:], templates, index, weights)
        total = template + recovery + classification + localization
        return MaLPLosses(total, template, localization, recovery, classification, penalty=torch.zeros_like(total))

    @classmethod
    def from_official(cls, path: str | Path, *, strength: float = OFFICIAL_STRENGTH) -> MaLP:
        """A checkpoint the authors published, "localization only" or "localization + detection", in evaluation mode.

        Args:
            path: ``<count>_model.pickle`` of github.com/vishal3477/pro_loc. It is read as plain tensors; optimiser entries are ignored.
            strength: m, which the file doesn't tell. Their code's default is 0.1, the paper says 0.3.

        Theirs are the weights, the templates, every layer, P(manipulated by the classifier) = sigmoid(`logit`), and `similarity`, the cosine of
        a template with the min-max normalised recovered one. `transformer_map` is their raw reshape of the tokens, unbounded.

        Ours: `map` is their map, which ends in a ReLU and has no upper bound, clamped to [0, 1] (the classifier sees it as it is). `score`
        averages both witnesses by Eq. 10, their code doesn't. `encrypt` clamps to [-1, 1]. At another size than 128×128 the templates
        and the classifier's input are resampled. `losses` sees both halves in one batch, so that batch norms mix them.

        Note:
            A file without a classifier gets one that answers 0 for every image, and a warning: `score` rests on the template then. A file of
            train_loc.py ("localization only") can carry a classifier although that script has no use for one; nothing in the file tells.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, needs code to be read, or isn't such a checkpoint.
        """
        found = read_official(path)
        generation = found.vit_generation
        config = {"vit_generation": generation} if generation else {"transformer": False}
        malp = cls(MaLPConfig(architecture="official", set_size=len(found.templates), strength=strength, **config))
        found.load_into(malp.encryption.templates, malp.cnn, malp.transformer, malp.classifier)
        return malp.eval()
