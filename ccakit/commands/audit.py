"""`ccakit audit`: check a data set, or the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Optional

from annotated_types import Ge

from ccakit.settings import CommandConfig, Share
from ccakit.training.config import TrainConfig


@dataclass
class Config(CommandConfig):
    """Check a data set: counts, broken or equal images, leakage, ceilings; or the paper's tables."""

    positional: ClassVar[str] = "data"

    data: Path = Path("data/garments")
    """The data set's folder; `ccakit audit DIR` is short for `ccakit audit --data DIR`."""
    paper: bool = False
    """Check the paper's tables instead, from label counts that come with ccakit."""
    images: bool = True
    """Look at every image, not at the lists alone."""
    threads: Annotated[int, Ge(0)] = 0
    """Threads that look at images; 0 is one a core, at most 8."""
    mode: Literal["triplets", "spaces"] = TrainConfig.mode
    """The mode of the training that is planned, for the expected shares of the pull (`ccakit train`)."""
    pull: Share = TrainConfig.pull
    """The --pull of that training."""
    oversample: Share = TrainConfig.oversample
    """Its --oversample."""
    plot: Optional[Path] = None
    """Draw images per value to this file (PNG or PDF)."""
    overwrite: bool = False
    """Replace the file that --plot names, if it exists."""
    strict: bool = False
    """Exit with 1 if something breaks training or evaluation: missing or unreadable images, shared images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.paper and self.plot is not None:
            raise ValueError("--plot draws a data set; there is none with --paper")


def run(config: Config) -> dict:
    """Print the tables and findings of the audit."""
    if config.paper:
        from ccakit.audit import paper

        result = paper.audit_paper()
        print(paper.table(result))
        return result
    from ccakit.audit.dataset import audit
    from ccakit.audit.report import table
    from ccakit.disk import check_output, refuse_existing

    if config.plot is not None:
        from ccakit.show.style import check_picture

        check_picture(config.plot)
        if not config.overwrite:
            refuse_existing(config.plot)
        check_output(config.plot)
    planned = dict(mode=config.mode, pull=config.pull, oversample=config.oversample)
    result = audit(config.data, config.images, config.threads, progress=True, **planned)
    if config.plot is not None:
        from ccakit.audit.plot import plot
        from ccakit.show.style import save

        save(plot(result), config.plot, dpi=90)
    print(table(result))
    if config.plot is not None:
        print(f"images per value: {config.plot}")
    return result
