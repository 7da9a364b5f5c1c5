"""`ccakit trunks`: which of timm's vision transformers CCA can stand in, and why it cannot in others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ccakit.settings import CommandConfig


@dataclass
class Config(CommandConfig):
    """List the trunks: families of vision transformers, what was tested, and why others are refused."""

    find: Optional[str] = None
    """Look at every network of timm whose name has this word in it instead, such as dinov3 or so400m."""


def run(config: Config) -> dict:
    """Print the families, or what stands against each network that is found."""
    import timm

    from ccakit.models.trunks.families import FAMILIES, OTHERS
    from ccakit.models.trunks.vit import trunk_problem
    from ccakit.text_table import text_table

    if config.find is None:
        rows = [["family", "what is read", "compared with timm's own forward (small, random weights)"]]
        rows += [[family.name, family.reads, ", ".join(family.tested)] for family in FAMILIES]
        refused = [f"  a {name}, {reason}" for name, reason in OTHERS.items()]
        print(text_table(rows, left=(0, 1, 2)), "", "refused:", *refused, sep="\n")
        print("  and blocks that normalise after themselves, are gated, or share keys between heads")
        print("one name, or many: ccakit trunks --find dinov3")
        return {"families": {family.name: list(family.tested) for family in FAMILIES}, "refused": OTHERS}
    names = timm.list_models(f"*{config.find}*")
    if not names:
        raise ValueError(f"timm has no network with {config.find!r} in its name")
    found = {name: trunk_problem(name) for name in names}
    rows = [["trunk", "can it be read?"], *([name, problem or "yes"] for name, problem in found.items())]
    print(text_table(rows, left=(0, 1)))
    return {"found": found}
