"""ASEN++ (Dong et al., TIP 2021): ASEN's second version looks twice, at the picture and at the place it attends to.

Two stages, as in the authors' code: the global branch alone (50 of 70 epochs), then a local branch beside it, which
sees the part of the picture where the global branch's map is above a tenth of its peak. Both read one embedding of
the condition. Losses of the second stage: the triplet loss on the global branch (1), on the local one (`local`, 0.1),
and 1 - cos between the two (`align`, 0.1, summed over anchor, positive and negative); the global branch then learns at
a tenth of the rate. An image's embedding is [sqrt(0.6) global, sqrt(0.4) local], in the first stage [global, 0].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ccakit.models.asen_v2 import ScaledAttention
from ccakit.models.base import ConditionalModel, Head, Outputs, choose_losses
from ccakit.models.crops import attended_boxes, cut_out, cut_picture
from ccakit.models.trunks.cnn import MapTrunk
from ccakit.processes import gather

BETA, SLOW = 0.6, 0.1
CROPS = ("image", "map")
FIRST_STAGE = 50 / 70  # the authors' 50 and 20 epochs


class Encoded:
    """Tokens that keep their images for the local branch: taken by index together."""

    def __init__(self, tokens: Tensor, images: Tensor) -> None:
        self.tokens, self.images, self.device = tokens, images, tokens.device

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor) -> Encoded:
        return Encoded(self.tokens[rows], self.images[rows])


class ASENPP(ConditionalModel):
    """The global and the local branch.

    crop: "image" cuts the place out of the picture and sends it through a CNN of its own, `local` (a trunk whose
    images have half the side), as the authors do; the local branch then cannot share the trunk. "map" cuts it out of
    the trunk's feature map, for kept features without a picture; a 3x3 convolution then stands for the second CNN.
    """

    own_losses = {"local": 0.1, "align": 0.1}

    def __init__(
        self,
        trunk: MapTrunk,
        conditions: int,
        *,
        crop: str = "image",
        local: MapTrunk | None = None,
        embed_dim: int | None = None,
        head_norm: str = "none",
        without: tuple[str, ...] = (),
    ) -> None:
        width = embed_dim or trunk.embed_dim
        super().__init__(trunk, conditions, 2 * width)
        if crop not in CROPS or (crop == "image") != (local is not None):
            raise ValueError(f'crop {crop!r}: "image" with a local trunk, or "map" without')
        self.crop, self.shares_trunk = crop, crop == "map"
        given, channels = trunk.embed_dim // 2, local.embed_dim if local else trunk.embed_dim
        self.condition = nn.Embedding(conditions, given)
        self.attend = ScaledAttention(trunk.embed_dim, given, given, norm=False)
        self.head = Head(trunk.embed_dim, width, head_norm)
        self.local = local or nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.local_attend = ScaledAttention(channels, given, channels if local else given, norm=False)
        self.local_head = Head(channels, width, head_norm)
        self.own_losses = choose_losses(self.own_losses, without)
        self.register_buffer("second_stage", torch.tensor(0, dtype=torch.int64))

    @property
    def keeps_features(self) -> bool:
        return self.crop == "map" and self.trunk.freezes

    def advance(self, share: float) -> None:
        self.second_stage.fill_(share >= FIRST_STAGE)

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        branch = [
            *self.trunk.parameters(),
            *self.condition.parameters(),
            *self.attend.parameters(),
            *self.head.parameters(),
        ]
        return [p for p in branch if p.requires_grad], SLOW if self.second_stage else 1.0

    def encode(self, images: Tensor) -> Tensor | Encoded:
        tokens = self.trunk(images)
        return tokens if self.crop == "map" else Encoded(tokens, images)

    def branches(self, tokens: Tensor | Encoded, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """The global embedding (B, R, E/2) and, in the second stage, the local one, each of length 1."""
        x = tokens.tokens if isinstance(tokens, Encoded) else tokens
        picture = tokens.images if isinstance(tokens, Encoded) else tokens
        given = self.condition(condition)
        out, where = self.attend(x, given)
        if not self.second_stage:
            return self.head(out), None
        boxes = attended_boxes(where.detach().unflatten(-1, self.trunk.grid_size), self.image_side)
        return self.head(out), self._local(picture, boxes, given)

    @property
    def image_side(self) -> int:
        """Pixels a side on which the crop's box is found, 16 a place of the map."""
        return 16 * max(self.trunk.grid_size)

    def _local(self, picture: Tensor, boxes: Tensor, given: Tensor) -> Tensor:
        rows, side = given.shape[1], picture.shape[-1] // 2
        repeated = picture[:, None].expand(-1, rows, -1, -1, -1).flatten(0, 1)  # (B * R, ...)
        cut = cut_picture if self.crop == "image" else cut_out
        part = self.local(cut(repeated, boxes.flatten(0, 1), side))
        out, _ = self.local_attend(part, given.flatten(0, 1)[:, None])
        return self.local_head(out[:, 0]).unflatten(0, (-1, rows))

    def read(self, tokens: Tensor | Encoded, condition: Tensor) -> Tensor:
        whole, part = self.branches(tokens, condition)
        if part is None:
            return torch.cat([whole, torch.zeros_like(whole)], dim=-1)
        return torch.cat([math.sqrt(BETA) * whole, math.sqrt(1 - BETA) * part], dim=-1)

    def outputs(self, tokens: Tensor | Encoded, condition: Tensor | None, labels: Tensor) -> Outputs:
        rows = self.every(tokens) if condition is None else condition[:, None]
        whole, part = self.branches(tokens, rows)
        one = (lambda x: x) if condition is None else (lambda x: x[:, 0])
        if part is None:
            return Outputs(one(whole), {}, {})
        also = {"local": one(part)} if "local" in self.own_losses else {}
        terms = {}
        if "align" in self.own_losses:
            apart = gather((1 - (whole * part).sum(-1)).clamp(min=0))
            terms["align"] = 3 * apart.mean()  # a sum over the three of a triplet
        return Outputs(one(whole), also, terms)

    def attention(self, tokens: Tensor | Encoded, condition: Tensor) -> Tensor:
        """The global branch's spatial attention: (B, 1, h, w)."""
        x = tokens.tokens if isinstance(tokens, Encoded) else tokens
        given = self.condition(self.check_condition(condition, x)[:, None])
        return self.attend.where(x, given).unflatten(-1, self.trunk.grid_size)
