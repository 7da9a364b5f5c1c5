"""One network a condition (Figure 1a): what CCA replaces."""

from __future__ import annotations

import copy

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ccakit.models.base import ConditionalModel
from ccakit.models.triplet import TripletNetwork
from ccakit.models.trunks.vit import Trunk


class Networks(ConditionalModel):
    """K triplet networks that share nothing, but for a frozen stem's output, as it is the same in all of them.

    `tokens` are what they share: that output, or the images themselves.
    """

    shares_trunk = False

    def __init__(
        self,
        vit: VisionTransformer,
        conditions: int,
        *,
        freeze: str | int = "none",
        embed_dim: int | None = None,
        head_norm: str = "none",
    ) -> None:
        nn.Module.__init__(self)  # not ConditionalModel's: the trunk is registered once, in the first network
        if conditions < 1:
            raise ValueError(f"conditions={conditions}: at least one is needed")
        options = dict(freeze=freeze, embed_dim=embed_dim, head_norm=head_norm)
        self.nets = nn.ModuleList(TripletNetwork(copy.deepcopy(vit), 1, **options) for _ in range(conditions))
        self.conditions, self.embed_dim = conditions, self.nets[0].embed_dim

    @property
    def trunk(self) -> Trunk:
        """The first network's; its frozen stem, if any, is the others' as well."""
        return self.nets[0].trunk

    def encode_features(self, features: Tensor) -> Tensor:
        return features

    def _net(self, index: int, features: Tensor) -> Tensor:
        net = self.nets[index]
        return net.embed(net.encode_features(features), net.all_of(0, features))

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Each image through its condition's network only: tokens (B, ...), condition (B,) -> (B, E)."""
        self.check_condition(condition, tokens)
        places = [(index, (condition == index).nonzero()[:, 0]) for index in condition.unique().tolist()]
        rows = torch.cat([self._net(index, tokens[place]) for index, place in places])
        return rows[torch.cat([place for _, place in places]).argsort()]

    def spaces(self, tokens: Tensor) -> Tensor:
        return torch.stack([self._net(index, tokens) for index in range(self.conditions)], dim=1)

    def attention(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """[CLS]'s self-attention in each condition's network: (B, H, h, w)."""
        self.check_condition(condition, tokens)
        maps = [
            self.nets[c].attention(self.nets[c].encode_features(row[None]), condition[:1])
            for row, c in zip(tokens, condition.tolist())
        ]
        return torch.cat(maps)
