"""MaLP: manipulation localization using a proactive scheme (Asnani, Yin, Hassner, Liu, CVPR 2023), all modules in one network."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from malp_disc.backbones import DEFAULT_BACKBONE, create_backbone, default_depths
from malp_disc.config import MaLPConfig
from malp_disc.detection import MapClassifier, manipulation_score, template_similarity
from malp_disc.encryption import NO_TEMPLATE, PAPER_TEMPLATE_SIZE, Encryption
from malp_disc.feature_branch import FeatureBranch
from malp_disc.hub import MaLPHubMixin
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
from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.input_checks import check_batches, check_images, looks_at_values
from malp_disc.runtime.precision import full_precision


@dataclass
class MaLPOutput:
    """Predictions of MaLP for a batch of images.

    Attributes:
        map: fakeness map M̂ predicted by E_C, (B, 1, H, W) in [0, 1]; 0 means unchanged.
        template: recovered template S_R, (B, 1, H, W).
        logit: output of the classifier C on the map, (B,), positive for "manipulated".
        similarity: largest CS(S_i, S_R) over the set, (B,) in [-1, 1]; meaningless for a passive detector.
        score: P(manipulated) from classifier and template, (B,) in [0, 1] (the bracket of Eq. 10).
        branch_map: M̂ predicted by the second branch, (B, 1, H, W) in [0, 1]; None unless that branch was run.
        branch_logit: "manipulated" by a pretrained second branch, (B,); None for any other branch.
    """

    map: Tensor
    template: Tensor
    logit: Tensor
    similarity: Tensor
    score: Tensor
    branch_map: Tensor | None = None
    branch_logit: Tensor | None = None


class MaLP(Float32Module, MaLPHubMixin, library_name="malp-disc", tags=["manipulation-localization", "gan"]):
    """Encryption, localization and detection in one network, always in float32.

    ``.half()``, ``.bfloat16()``, ``.double()`` and ``.to(dtype)``, of it or of a module that contains it, leave its weights in float32.
    Images of any floating-point dtype are converted, autocast is disabled, and all outputs are float32; gradients have the dtype of the
    images.

    Example:
        >>> malp = MaLP(MaLPConfig(image_size=64, width=16, branch=None))
        >>> images = torch.zeros(2, 3, 64, 64)
        >>> encrypted, index = malp.encrypt(images)
        >>> malp(encrypted).map.shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(self, config: MaLPConfig | dict[str, Any] | None = None, *, backbone_weights: str | Path | None = None) -> None:
        super().__init__()
        if isinstance(config, dict):
            config = MaLPConfig(**config)
        self.config = config or MaLPConfig()
        size = self.config.template_size or min(self.config.image_size, PAPER_TEMPLATE_SIZE)
        self.encryption = Encryption(self.config.set_size, template_size=size, strength=self.config.strength)
        if self.config.architecture == "official":
            self.cnn = OfficialEncoder()
            self.branch = OfficialViT(self.config.vit_generation) if self.config.branch else None
            self.classifier = OfficialClassifier()
            self._similarity = official_similarity
            nn.init.uniform_(self.encryption.templates)  # the authors' initialization
        else:
            self.cnn = ShallowCNN(self.config.width)
            self.branch = self._create_branch(backbone_weights)
            self.classifier = MapClassifier()
            self._similarity = template_similarity
        self.float()  # also under another torch.set_default_dtype

    def _create_branch(self, backbone_weights: str | Path | None) -> nn.Module | None:
        if not self.config.pretrained_branch:
            return GlobalTransformer(self.config.image_size) if self.config.branch == "vit" else None
        backbone = create_backbone(self.config.branch, backbone_weights, depths=self.config.branch_depths)
        if self.config.backbone_fingerprint not in (None, backbone.fingerprint):
            raise ValueError(
                f"this MaLP was trained on a {self.config.branch} with other weights ({self.config.backbone_fingerprint}, got {backbone.fingerprint}); "
                "give its own as backbone_weights=…"
            )
        self.config = dataclasses.replace(self.config, backbone_fingerprint=backbone.fingerprint)
        return FeatureBranch(backbone, least_side=self.config.branch_side, labels=self.config.branch_labels)

    def drop_branch(self) -> None:
        """Remove the second branch, from the configuration too: it isn't needed to localize and detect by E_C."""
        self.branch, self.config = None, self.config.without_branch()

    @property
    def passive(self) -> bool:
        """True if no template is added (strength 0): the paper's passive baseline."""
        return self.config.strength == 0

    @property
    def strength(self) -> float:
        """m of Eq. 6."""
        return self.encryption.strength

    @property
    def device(self) -> torch.device:
        """The device of the weights, on which images are expected."""
        return self.encryption.templates.device

    @full_precision
    def encrypt(self, images: Tensor, index: Tensor | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """T(I), Eq. 6: add a template to each image.

        Args:
            images: (B, 3, H, W) in [-1, 1], of the training size. At another one the templates are stretched, with a warning: E_E hardly recognizes them then.
                `malp_disc.tiling` protects images of any size in windows.
            index: (B,) long, the templates to add (-1 for none); random if None.
            generator: random number generator for the choice of templates.

        Returns:
            Encrypted images, clamped to [-1, 1], float32, and the index (B,).

        Raises:
            ValueError: wrong shape, range, dtype or device, or an index outside the set.
        """
        check_batches({"images": images}, device=self.device)
        height, width = images.shape[2:]
        if {height, width} != {self.config.image_size} and not self.passive:
            warnings.warn(
                f"this MaLP was trained at {self.config.image_size}x{self.config.image_size}; at {height}x{width} its templates are stretched, and it hardly recognizes "
                "them. Pretrain one at this size, or protect images in windows (malp_disc.tiling, malp-disc protect)",
                stacklevel=3,  # beyond full_precision
            )
        if index is None:
            index = self.encryption.draw(len(images), generator)
        index = self.encryption.check_index(index, len(images))
        return self.encryption(images, index), index

    @full_precision
    def forward(self, images: Tensor, *, branch: bool = False) -> MaLPOutput:
        """Predict fakeness map, template and score, see `MaLPOutput`.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            branch: also run the second branch. The paper uses E_T in training only.

        Raises:
            ValueError: wrong shape, range, dtype or device, or `branch` for a network without a second branch.
        """
        check_batches({"images": images}, device=self.device)
        check_images(images)
        return self._predict(images, branch=branch)

    def _predict(self, images: Tensor, *, branch: bool, recovery: bool = True, known_map: Tensor | None = None) -> MaLPOutput:
        """`forward` without checks of the images; without `recovery` E_E isn't run, and template and similarity are 0. `known_map`, of the last images, needs that."""
        self.check_weights()
        if branch and self.branch is None:
            raise ValueError("this MaLP was created with branch=None and has no second branch")
        images = images.float()
        unknown = images if known_map is None else images[: -len(known_map)]
        maps, template = self.cnn(unknown) if recovery else self.cnn(unknown, recovery=False)
        maps = maps if known_map is None else torch.cat([maps, known_map])
        logit = self.classifier(maps)
        if template is None:
            template, similarity = torch.zeros_like(maps), torch.zeros_like(logit)
        else:
            similarity = self._similarity(template, self.encryption.at(images.shape[2:])).amax(dim=1)
        score = manipulation_score(logit, similarity, not self.passive)
        second = self.branch(images) if branch else None
        second, second_logit = (second.map, second.logit) if isinstance(self.branch, FeatureBranch) and branch else (second, None)
        return MaLPOutput(maps.clamp(0, 1), template, logit, similarity, score, second, second_logit)  # the authors' map has no upper bound

    def similarities(self, recovered: Tensor, templates: Tensor) -> Tensor:
        """CS of every recovered template with every one of `templates`, as defined by the architecture: (B, 1, H, W) × (n, 1, H, W) -> (B, n)."""
        return self._similarity(recovered, templates)

    @full_precision
    def losses(
        self, encrypted: Tensor, manipulated: Tensor, truth: Tensor, index: Tensor, weights: LossWeights | None = None, *,
        real: Tensor | None = None, features: Sequence[Tensor] = (), labels: Tensor | None = None, target: Tensor | None = None,
        branch_map: bool = True, template: bool = True, known_map: Tensor | None = None,
    ) -> MaLPLosses:  # fmt: skip
        """J = J_T + J_R + J_C + J_L, Eq. 11, from one forward pass over encrypted and manipulated images.

        Both branches have J_L. A pretrained second branch also has a J_C of its own (`MaLPLosses.realness`), and sends no gradient to the templates.

        Args:
            encrypted: T(I), (B, 3, H, W) in [-1, 1], from `encrypt`; gradients reach the templates through it.
            manipulated: G(T(I)), same shape; may be detached.
            truth: M_GT of Eq. 5, (B, 1, H, W) in [0, 1].
            index: (B,), from `encrypt`.
            weights: λ1 … λ10.
            real: images of the generator's target domain, which a pretrained second branch takes as not manipulated, in place of `encrypted`.
            features: a pretrained second branch's feature maps of `manipulated`, where they are known.
            labels, target: attributes of `encrypted`, and those that `manipulated` was edited to, for a second branch that is told them.
            branch_map: whether a pretrained second branch's map learns too (`FeatureBranch.losses`).
            template: whether the templates and E_E learn. Without, for images that have no template, and for a passive MaLP, E_E isn't run, J_T and J_R are 0, and
                so are their gradients.
            known_map: E_C's map of `manipulated` with a graph to its weights, where it is known; it saves a pass, but E_E can't be run then.

        Raises:
            ValueError: no images; wrong shapes, ranges, dtypes or devices; an index outside the set, or of a template where these don't learn; a known map where they
                do, or of other images; or as `FeatureBranch.losses`.
        """
        weights = weights or LossWeights()
        check_batches({"encrypted": encrypted, "manipulated": manipulated}, device=self.device, nonempty=True)
        check_images(encrypted, "encrypted")
        check_images(manipulated, "manipulated")
        check_maps(truth, like=encrypted)
        count = len(encrypted)
        index = self.encryption.check_index(index, count)
        kept = index != NO_TEMPLATE  # no template can be recovered from an unprotected image or its manipulated version
        if not template and looks_at_values(index) and kept.any():
            raise ValueError("some images have a template, which template=False leaves out; expected an index of -1 for all")
        pretrained, recovers = isinstance(self.branch, FeatureBranch), template and not self.passive
        if known_map is not None and recovers:
            raise ValueError("a known map leaves out E_E, which learns here; leave out the map, or the templates with template=False")
        if known_map is not None and known_map.shape != truth.shape:
            raise ValueError(f"expected a known map {tuple(truth.shape)}, one per image of manipulated, got {tuple(known_map.shape)}")
        images = torch.cat([encrypted.float(), manipulated.float()])
        out = self._predict(images, branch=self.branch is not None and not pretrained, recovery=recovers, known_map=known_map)
        localization = torch.zeros((), device=encrypted.device)
        for maps in (out.map, out.branch_map):
            if maps is not None:
                localization = localization + localization_loss_encrypted(maps[:count], truth, weights)
                localization = localization + localization_loss_manipulated(maps[count:], truth, weights)
        manipulated_label = torch.cat([torch.zeros_like(out.logit[:count]), torch.ones_like(out.logit[count:])])
        expected = torch.cat([kept, kept]) & (not self.passive)
        classification = classification_loss(out.logit, out.similarity, manipulated_label, expected, weights)
        if not recovers:
            of_templates = 0.0 * sum(values.sum() for values in (self.encryption.templates, *self.cnn.parameters()))  # DDP requires every parameter in the graph
            recovery = torch.zeros_like(of_templates)
        else:
            of_templates = template_loss(self.encryption.templates, weights)
            templates = self.encryption.at(encrypted.shape[2:])
            recovery = recovery_loss(out.template[:count], out.template[count:], templates, index, weights)
        realness = torch.zeros_like(localization)
        if pretrained:
            by_branch, realness = self.branch.losses(encrypted, manipulated, truth, weights, real, features, labels, target, map=branch_map)
            localization = localization + by_branch
        total = of_templates + recovery + classification + localization + realness
        return MaLPLosses(total, of_templates, localization, recovery, classification, penalty=torch.zeros_like(total), realness=realness)

    @classmethod
    def from_official(cls, path: str | Path, *, strength: float = OFFICIAL_STRENGTH) -> MaLP:
        """Load a checkpoint published by the authors, "localization only" or "localization + detection", in evaluation mode.

        Args:
            path: ``<count>_model.pickle`` of github.com/vishal3477/pro_loc. It is read as plain tensors; optimizer states are ignored.
            strength: m, which isn't stored in the file. The default of the authors' code is 0.1, the paper's value 0.3.

        As in the authors' code: weights, templates, all layers, the classifier's P(manipulated) = sigmoid(`logit`), and `similarity`, the
        cosine of a template and the min-max normalized recovered one. `branch_map` is the authors' reshape of the tokens, unbounded.

        Different: `map` is the authors' map, which ends in a ReLU and is unbounded, clamped to [0, 1]; the classifier gets the unclamped
        one. `score` averages classifier and template by Eq. 10, which the authors' code doesn't. `encrypt` clamps to [-1, 1]. At sizes
        other than 128×128, the templates and the classifier's input are resampled. `losses` computes encrypted and manipulated images in
        one batch, so that batch norm mixes their statistics.

        Note:
            If the file has no classifier, `logit` is 0 for every image, with a warning, and `score` depends on the template only. A file of
            train_loc.py ("localization only") may contain a classifier that was never trained; this can't be detected.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged, contains objects other than tensors, or isn't such a checkpoint.
        """
        found = read_official(path)
        generation = found.vit_generation
        config = {"vit_generation": generation} if generation else {"branch": None}
        malp = cls(MaLPConfig(architecture="official", set_size=len(found.templates), strength=strength, **config))
        found.load_into(malp.encryption.templates, malp.cnn, malp.branch, malp.classifier)
        return malp.eval()


def with_pretrained_branch(
    malp: MaLP, name: str = DEFAULT_BACKBONE, *, weights: str | Path | None = None, side: int = 128, depths: int | None = None, labels: int = 0
) -> MaLP:
    """A copy of a MaLP whose second branch is a frozen pretrained backbone with new, untrained heads (`malp_disc.feature_branch`).

    Args:
        name, weights: of the backbone, as for `malp_disc.backbones.create_backbone`.
        side: images whose shorter side is smaller are enlarged to it for the backbone.
        depths: number of its feature maps that the heads look at, the finest first; `malp_disc.backbones.default_depths` for the MaLP's image size if None.
        labels: number of attributes that its realness heads are told of each image; 0 for none.

    Raises:
        ValueError, FileNotFoundError: as `malp_disc.backbones.create_backbone`; or a MaLP of the authors' architecture, whose second branch is the transformer.
    """
    depths = depths or default_depths(malp.config.image_size, side)
    config = dataclasses.replace(malp.config, branch=name, branch_side=side, branch_depths=depths, branch_labels=labels, backbone_fingerprint=None)
    copied = MaLP(config, backbone_weights=weights)
    kept = {key: value for key, value in malp.state_dict().items() if not key.startswith("branch.")}
    copied.load_state_dict({**copied.state_dict(), **kept})
    return copied.to(malp.device).train(malp.training)
