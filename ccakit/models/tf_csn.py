"""TF-CSN (section 4.6): the vision transformer, and CSN's mask on its [CLS] output."""

from __future__ import annotations

from ccakit.models.csn import CSN
from ccakit.models.triplet import ClsReader


class TFCSN(ClsReader, CSN):
    """l2(FC([CLS]) * mask)."""

    source = "the paper, section 4.6"
    faithfulness = "after the paper, with our choices: learned masks, FC before the mask"
