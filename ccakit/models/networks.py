"""One network a condition (Figure 1a), which CCA replaces by one network for all."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ccakit.models.base import ConditionalModel
from ccakit.models.triplet import TripletNetwork
from ccakit.models.trunks.vit import Trunk, ViT


class Networks(ConditionalModel):
    """K triplet networks, which share only the output of a frozen stem, as it is the same in all of them.

    `tokens` are that output or, without a frozen stem, the images themselves.
    """

    source = "Figure 1a"
    faithfulness = "one triplet network a condition"
    reads = "tokens"
    shares_trunk = False

    def __init__(self, vit: ViT, conditions: int, **options) -> None:
        nn.Module.__init__(self)  # not ConditionalModel's: the trunk is registered once, in the first network
        self.nets = nn.ModuleList(TripletNetwork(copy.deepcopy(vit), 1, **options) for _ in range(conditions))
        self.conditions, self.embed_dim = conditions, self.nets[0].embed_dim

    @property
    def trunk(self) -> Trunk:
        """The first network's trunk; its frozen stem, if any, is the same in the other networks."""
        return self.nets[0].trunk

    def encode_features(self, features: Tensor) -> Tensor:
        return features

    def _embed_by(self, index: int, features: Tensor) -> Tensor:
        """Embed images by one network: features (B, ...) -> (B, E)."""
        net = self.nets[index]
        return net.embed(net.encode_features(features), net.repeat_condition(0, features))

    def embed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Run each image through its condition's network only: tokens (B, ...), condition (B,) -> (B, E)."""
        self.check_condition(condition, tokens)
        present = condition.unique().tolist()
        rows = [(condition == index).nonzero()[:, 0] for index in present]  # the images of each network
        embeddings = torch.cat([self._embed_by(index, tokens[own]) for index, own in zip(present, rows)])
        return embeddings[torch.cat(rows).argsort()]

    def spaces(self, tokens: Tensor) -> Tensor:
        return torch.stack([self._embed_by(index, tokens) for index in range(self.conditions)], dim=1)

    def attention_rows(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Compute [CLS]'s self-attention in each condition's network: (B, H, P+N)."""
        rows = []
        for image, index in zip(tokens, condition.tolist()):
            net = self.nets[index]
            rows.append(net.attention_rows(net.encode_features(image[None]), condition[:1]))
        return torch.cat(rows)
