"""M2Fashion, after the paper's description: "adds a classifier to the ASEN base".

No code is public. Ours: ASEN's first version, and a linear classifier of the condition's values on the
embedding before its L2, whose cross entropy is added to the triplet loss (`classify`, weight 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from ccakit.models.asen import ASEN
from ccakit.models.classifier import ClassifyingModel, ValueClassifier
from ccakit.models.trunks.frozen import FrozenStem


class M2Fashion(ASEN, ClassifyingModel):
    """ASEN with a classifier beside it. values: how many values each attribute has."""

    source = "the paper, section 2"
    faithfulness = "after the paper, with our choices: asen and a linear classifier of the condition's values"

    def __init__(self, trunk: FrozenStem, conditions: int, *, values: Sequence[int], **options) -> None:
        super().__init__(trunk, conditions, **options)
        self.classifier = ValueClassifier(self.embed_dim, values)
