"""`ccakit params`: parameters counted, and the list of systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ccakit.settings import CommandConfig, Positive


@dataclass
class Config(CommandConfig):
    """Count the parameters of every part, beside the paper's claims of section 4.4."""

    trunk: str = "vit_base_r50_s16_224"
    """The trunk; the paper's by default."""
    read_block: Optional[Positive] = None
    """The block that is read, L; the trunk's last by default."""
    conditions: Positive = 8
    """The number of conditions, K."""
    list: bool = False
    """List the systems and trunks instead."""


def run(config: Config) -> dict:
    """Print the counts, or the list."""
    from ccakit.models.parameters import count_parts, list_systems

    if config.list:
        print(list_systems())
        return {}
    result, text = count_parts(config.trunk, config.conditions, config.read_block)
    print(text)
    return result
