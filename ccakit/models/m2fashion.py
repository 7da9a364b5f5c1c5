"""M2Fashion, after the paper's description: "adds a classifier to the ASEN base".

No code is public. Ours: ASEN's first version, and a linear classifier of the condition's values on the embedding
before its L2, whose cross entropy is added to the triplet loss (`classify`, weight 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from ccakit.models.asen import ASEN
from ccakit.models.base import Outputs, choose_losses
from ccakit.models.classifier import ValueClassifier
from ccakit.models.trunks.frozen import FrozenStem


class M2Fashion(ASEN):
    """ASEN with a classifier beside it. values: how many values each attribute has."""

    own_losses = {"classify": 1.0}

    def __init__(
        self,
        trunk: FrozenStem,
        conditions: int,
        *,
        values: Sequence[int],
        without: tuple[str, ...] = (),
        **options,
    ) -> None:
        super().__init__(trunk, conditions, **options)
        self.classifier = ValueClassifier(self.embed_dim, values)
        self.own_losses = choose_losses(self.own_losses, without)

    def outputs(self, tokens: Tensor, condition: Tensor | None, labels: Tensor) -> Outputs:
        rows = self.every(tokens) if condition is None else condition[:, None]
        projected = self.head.project(self.attend(self.as_map(tokens), rows))  # (B, R, E)
        terms = {}
        if "classify" in self.own_losses:
            terms["classify"] = self.classifier.loss(projected, rows, labels.view(rows.shape))
        embedding = F.normalize(projected, dim=-1)
        return Outputs(embedding if condition is None else embedding[:, 0], {}, terms)
