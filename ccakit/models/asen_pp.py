"""ASEN++ (Dong et al., TIP 2021): ASEN's second version looks at the picture, then where it attends.

Two stages, as in the authors' code: the global branch alone (50 of 70 epochs), then a local branch beside it,
which sees the part of the picture where the global branch's map is above a tenth of its peak. Both read one
embedding of the condition. Losses of the second stage: the triplet loss on the global branch (1), on the
local one (`local`, 0.1), and 1 - cos between the two (`align`, 0.1, summed over anchor, positive and
negative); the global branch then learns at a tenth of the rate. An image's embedding is [sqrt(0.6) global,
sqrt(0.4) local], in the first stage [global, 0].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ccakit.models.asen_v2 import ScaledAttention
from ccakit.models.base import ConditionalModel, Outputs
from ccakit.models.crops import attended_boxes, crop_squares
from ccakit.models.head import Head
from ccakit.models.trunks.cnn import MapTrunk
from ccakit.processes import gather

BETA, SLOW = 0.6, 0.1
CROPS = ("image", "map")
FIRST_STAGE = 50 / 70  # the authors' 50 and 20 epochs
ON_MAP = (
    "not the authors' ASEN++: crops are cut from the map, and a 3x3 convolution stands for the second CNN"
)


class TokensWithImages:
    """Tokens that keep their images for the local branch; an index selects from both."""

    def __init__(self, tokens: Tensor, images: Tensor) -> None:
        self.tokens, self.images = tokens, images
        self.shape, self.device = tokens.shape, tokens.device

    def __getitem__(self, rows: Tensor) -> TokensWithImages:
        return TokensWithImages(self.tokens[rows], self.images[rows])


class ASENPP(ConditionalModel):
    """The global and the local branch.

    crop: "image" cuts the place out of the picture and sends it through a CNN of its own, `local` (a trunk
    whose images have half the side), as the authors do; the local branch then cannot share the trunk. "map"
    cuts it out of the trunk's feature map, for kept features without a picture; a 3x3 convolution then stands
    for the second CNN.
    """

    source = "Dong et al., TIP 2021"
    faithfulness = f"as the authors' code, with crops of the resized picture; on kept features, {ON_MAP}"
    options = ("head", "crop", "local")
    own_losses = {"local": 0.1, "align": 0.1}
    shares_trunk = False  # of the authors' system; a model with crop "map" shares it
    if_shared = ON_MAP

    def __init__(
        self,
        trunk: MapTrunk,
        conditions: int,
        *,
        crop: str = "image",
        local: MapTrunk | None = None,
        embed_dim: int | None = None,
        **options,
    ) -> None:
        channels = trunk.embed_dim
        width = embed_dim or channels
        super().__init__(trunk, conditions, embed_dim=2 * width, **options)
        if crop not in CROPS or (crop == "image") != (local is not None):
            raise ValueError(f'crop {crop!r}: "image" with a local trunk, or "map" without')
        self.crop, self.shares_trunk = crop, crop == "map"
        common = channels // 2
        self.condition = nn.Embedding(conditions, common)
        self.attend = ScaledAttention(channels, common, common, norm=False)
        self.head = Head(channels, width, self.head_norm, self.head_conditions)
        if local is None:
            convolution = nn.Conv2d(channels, channels, 3, padding=1)
            self.local = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())
            self.local_attend = ScaledAttention(channels, common, common, norm=False)
        else:
            self.local, channels = local, local.embed_dim
            self.local_attend = ScaledAttention(channels, common, channels, norm=False)
        self.local_head = Head(channels, width, self.head_norm, self.head_conditions)
        self.register_buffer("second_stage", torch.tensor(0, dtype=torch.int64))

    @property
    def keeps_features(self) -> bool:
        return self.crop == "map" and self.trunk.frozen > 0

    def advance(self, share: float) -> None:
        self.second_stage.fill_(share >= FIRST_STAGE)

    def slow_parameters(self) -> tuple[list[nn.Parameter], float]:
        global_branch = nn.ModuleList([self.trunk, self.condition, self.attend, self.head])
        return [p for p in global_branch.parameters() if p.requires_grad], SLOW if self.second_stage else 1.0

    def encode(self, images: Tensor) -> Tensor | TokensWithImages:
        tokens = self.trunk(images)
        return tokens if self.crop == "map" else TokensWithImages(tokens, images)

    def branches(self, tokens: Tensor | TokensWithImages, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed (B, R, E/2) by the global branch and, in the second stage, by the local one; normalised."""
        x, picture = (tokens, tokens) if self.crop == "map" else (tokens.tokens, tokens.images)
        query = self.condition(condition)
        out, weights = self.attend(x, query)
        if not self.second_stage:
            return self.head(out, condition), None
        side = 16 * max(self.trunk.grid_size)  # the box is found at 16 pixels a place of the map
        boxes = attended_boxes(weights.detach().unflatten(-1, self.trunk.grid_size), side)
        return self.head(out, condition), self._local_branch(picture, boxes, query, condition)

    def _local_branch(self, picture: Tensor, boxes: Tensor, query: Tensor, condition: Tensor) -> Tensor:
        """Embed each row's box (B, R, 3), its query (B, R, A): picture (B, C, h, w) -> (B, R, E/2)."""
        rows, side = query.shape[1], picture.shape[-1] // 2
        # a picture for each of its rows: (B, C, h, w) -> (B * R, C, h, w)
        repeated = picture[:, None].expand(-1, rows, -1, -1, -1).flatten(0, 1)
        squares = crop_squares(repeated, boxes.flatten(0, 1), side, antialias=self.crop == "image")
        part = self.local(squares)
        out, _ = self.local_attend(part, query.flatten(0, 1)[:, None])
        return self.local_head(out[:, 0].unflatten(0, (-1, rows)), condition)

    def read(self, tokens: Tensor | TokensWithImages, condition: Tensor) -> Tensor:
        global_part, local_part = self.branches(tokens, condition)
        if local_part is None:
            return torch.cat([global_part, torch.zeros_like(global_part)], dim=-1)
        return torch.cat([math.sqrt(BETA) * global_part, math.sqrt(1 - BETA) * local_part], dim=-1)

    def outputs(self, tokens: Tensor | TokensWithImages, condition: Tensor | None, labels: Tensor) -> Outputs:
        global_part, local_part = self.branches(tokens, self.condition_rows(tokens, condition))
        extra, terms = {}, {}
        if local_part is not None and "local" in self.own_losses:
            extra["local"] = local_part
        if local_part is not None and "align" in self.own_losses:
            distance = gather((1 - (global_part * local_part).sum(-1)).clamp(min=0))
            terms["align"] = 3 * distance.mean()  # a sum over the three of a triplet
        return Outputs(global_part, extra, terms).shaped_for(condition)

    def attention_rows(self, tokens: Tensor | TokensWithImages, condition: Tensor) -> Tensor:
        """Compute the global branch's spatial attention, of one head: (B, 1, N)."""
        x = tokens.tokens if isinstance(tokens, TokensWithImages) else tokens
        return self.attend.place_weights(x, self.condition(condition[:, None]))
