"""E_T of the authors' code: the ViT of vit-pytorch, with the state-dict keys of its four versions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from malp_disc.runtime.freezing import Float32Module
from malp_disc.runtime.precision import full_precision

VIT_GENERATIONS = ("prenorm", "dualpatchnorm", "foldednorm", "current")

_HEAD_WIDTH = 64  # of one attention head


class OfficialViT(Float32Module):
    """E_T of the authors' code: the ViT of vit-pytorch, whose patch tokens are reshaped row by row to a map.

    Args:
        generation: version of vit-pytorch, which determines keys and computation. "prenorm" (up to 0.40.2): the patch embedding is a linear
            layer; "dualpatchnorm" (1.0 to 1.2): with a layer norm before and after it; "foldednorm" (1.4 to 1.16.1): the norms of the
            blocks move into attention and feed-forward, and the final norm from the head to the end of the blocks, so that it applies to
            the tokens used here; "current" (from 1.16.2): two parameters have one dimension less.
        image_size, patch_size, num_classes, dim, depth, heads, mlp_dim, dropout, emb_dropout: as in vit-pytorch; defaults are the authors'.

    Shape:
        images (B, 3, H, W) in [-1, 1] with sides divisible by `patch_size`, no more patches than at `image_size` -> map (B, 1, H, W), unbounded.

    Note:
        As in the authors' code, the map is *not* assembled from patches: each token fills 64 consecutive pixels, half a row at 128×128.
        Unlike in their code, tokens aren't detached, so that these weights can be trained. `malp_disc.localization.GlobalTransformer` is
        the branch of the paper.
    """

    def __init__(
        self,
        generation: str = "prenorm",
        *,
        image_size: int = 128,
        patch_size: int = 8,
        num_classes: int = 256,
        dim: int = 64,
        depth: int = 6,
        heads: int = 4,
        mlp_dim: int = 512,
        dropout: float = 0.1,
        emb_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if generation not in VIT_GENERATIONS:
            raise ValueError(f"unknown generation of vit-pytorch's keys {generation!r}; there are {', '.join(VIT_GENERATIONS)}")
        self.patch_size = patch_size
        numbers, positions = 3 * patch_size**2, (image_size // patch_size) ** 2 + 1  # per patch; the class token has a position as well
        folded, batch = generation in ("foldednorm", "current"), () if generation == "current" else (1,)
        self.pos_embedding = nn.Parameter(torch.randn(*batch, positions, dim))
        self.cls_token = nn.Parameter(torch.randn(*batch, 1, dim))
        embedding: list[nn.Module] = [nn.Linear(numbers, dim)]
        if generation != "prenorm":
            embedding = [nn.LayerNorm(numbers), *embedding, nn.LayerNorm(dim)]
        self.to_patch_embedding = nn.Sequential(_Patches(patch_size), *embedding)
        self.dropout = nn.Dropout(emb_dropout)
        self.transformer = _Blocks(dim, depth, heads, mlp_dim, dropout, folded=folded)
        self.mlp_head = nn.Linear(dim, num_classes) if folded else nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        unused = sum(parameter.sum() for parameter in self.mlp_head.parameters())  # DDP requires every parameter in the graph
        return self.tokens(images)[:, 1:].reshape(len(images), 1, *images.shape[2:]) + 0.0 * unused

    @full_precision
    def tokens(self, images: Tensor) -> Tensor:
        """Output tokens of the transformer, (B, 1 + patches, dim), the class token first."""
        height, width = images.shape[2:]
        count, most = (height // self.patch_size) * (width // self.patch_size), self.pos_embedding.shape[-2] - 1
        if height % self.patch_size or width % self.patch_size or count > most:
            side = int(most**0.5) * self.patch_size
            raise ValueError(
                f"the authors' transformer needs sides divisible by {self.patch_size} and at most {most} patches, as {side}x{side} has, got {height}x{width}"
            )
        x = torch.cat([self.cls_token.expand(len(images), 1, -1), self.to_patch_embedding(images.float())], dim=1)
        return self.transformer(self.dropout(x + self.pos_embedding[..., : count + 1, :]))


class _Patches(nn.Module):
    """(B, 3, H, W) -> (B, patches, 3·size²), the values of a patch in the order row, column, channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        pieces = images.unflatten(3, (-1, self.size)).unflatten(2, (-1, self.size))  # (B, 3, rows, size, columns, size)
        return pieces.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class _Blocks(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int, dropout: float, *, folded: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(depth):
            attention = _Attention(dim, heads, dropout, folded=folded)
            feed_forward = _FeedForward(dim, mlp_dim, dropout, folded=folded)
            self.layers.append(nn.ModuleList([attention, feed_forward] if folded else [_PreNorm(dim, attention), _PreNorm(dim, feed_forward)]))
        self.norm = nn.LayerNorm(dim) if folded else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for attention, feed_forward in self.layers:
            x = x + attention(x)
            x = x + feed_forward(x)
        return self.norm(x)


class _PreNorm(nn.Module):
    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float, *, folded: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(dim) if folded else nn.Identity()
        self.to_qkv = nn.Linear(dim, 3 * heads * _HEAD_WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * _HEAD_WIDTH, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).unflatten(2, (3, self.heads, _HEAD_WIDTH)).permute(2, 0, 3, 1, 4)  # (B, heads, N, 64) each
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.to_out(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, mlp_dim: int, dropout: float, *, folded: bool) -> None:
        super().__init__()
        norm = [nn.LayerNorm(dim)] if folded else []
        self.net = nn.Sequential(*norm, nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def vit_generation(keys: Mapping[str, Tensor], *, source: str) -> str:
    """The version of vit-pytorch, out of `VIT_GENERATIONS`, that a ViT's state dict was saved by.

    Raises:
        ValueError: it isn't a state dict of vit-pytorch's ViT.
    """
    if "mlp_head.weight" in keys and "cls_token" in keys:  # the last norm left the head
        return "current" if keys["cls_token"].ndim == 2 else "foldednorm"
    if "to_patch_embedding.3.weight" in keys:
        return "dualpatchnorm"
    if "to_patch_embedding.1.weight" in keys:
        return "prenorm"
    raise ValueError(f"{source} holds no ViT of vit-pytorch: expected to_patch_embedding.1.weight, cls_token …, found {list(keys)[:3]}")
