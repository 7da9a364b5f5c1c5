"""Report a run while it trains: bar, train.log, log.csv, TensorBoard, and a warning where it collapses."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ccakit import processes
from ccakit.data.inputs import Inputs
from ccakit.disk import named, read_json, write_json
from ccakit.metrics import RetrievalResult
from ccakit.training.checkpoints import newest_first
from ccakit.training.progress import Progress
from ccakit.training.run_folder import COLUMNS, add_row, column_of

log = logging.getLogger("ccakit")
COLLAPSED, COLLAPSE_FROM = 0.01, 0.25
COLLAPSE_REMEDY = (
    "training has collapsed: in one space at least, all embeddings of a batch are one point "
    "(spread {:.4f}). Try --head-norm batchnorm, --mining all-then-active with a later --active-from, "
    "a smaller --lr, or a pre-trained trunk"
)


class _OnScreen(logging.Handler):
    """Show warnings on stderr, above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """Write train.log; a full disk is reported where the run writes its next file."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class Reporter:
    """Report in the main process; in the others, do nothing. quiet: no bar. `close` after use."""

    def __init__(self, out: Path, quiet: bool = False) -> None:
        self.out, self.quiet, self.writer, self.handlers = out, quiet, None, []
        if processes.is_main():
            self.writer = SummaryWriter(str(out / "tensorboard"))
            self.handlers = [_LogFile(out / "train.log", encoding="utf-8")]
            if not logging.getLogger().handlers:  # else they are shown already
                self.handlers.append(_OnScreen(logging.WARNING))
        for handler in self.handlers:
            log.addHandler(handler)
        hide = quiet or not processes.is_main() or None  # None: shown on a terminal, not in a log
        form = "{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining} {postfix}"
        self.bar = tqdm(total=100, disable=hide, desc="training", bar_format=form)

    def close(self) -> None:
        self.bar.close()
        for handler in self.handlers:
            log.removeHandler(handler)
        for last in (*self.handlers, *filter(None, [self.writer])):
            try:
                last.close()
            except OSError as error:
                log.warning("%s: the end of train.log or the curves is not written (%s)", self.out, error)

    def note(self, text: str) -> None:
        """Write a line into train.log, which the screen does not show."""
        for handler in self.handlers[:1]:
            handler.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, text, (), None))

    def say(self, text: str) -> None:
        """Write a line into train.log, and print it unless quiet."""
        self.note(text)
        if self.handlers and not self.quiet:
            tqdm.write(text)

    def step(self, progress: Progress, share: float, rate: float) -> None:
        """Move the bar. rate: images a second."""
        self.bar.n = int(100 * share)
        loss, best = progress.rows[-1][0], progress.best
        self.bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s, best {best:.1f}")

    def evaluation(self, row: dict, progress: Progress) -> None:
        """Write a line of log.csv, and the same for TensorBoard; the main process calls this."""
        add_row(self.out, row)
        with named(self.out / "tensorboard"):
            for name in row.keys() - COLUMNS[:2]:
                self.writer.add_scalar(name.replace(":", "/", 1), row[name], row["step"])
            for name, term in progress.terms.items():
                self.writer.add_scalar(f"own/{name}", term, row["step"])


def log_row(progress: Progress, rows: list[list[float]], ranked: RetrievalResult) -> dict:
    """Make log.csv's row of an epoch: means over its batches, whose loss, triplets and spread are `rows`, and
    mAPs on valid in percent, in all and of each attribute that has queries."""
    loss, triplets, spread = (sum(column) / len(rows) for column in zip(*rows))
    rate, speed = progress.learning_rate, progress.images_per_second()
    values = (progress.step, progress.epoch, loss, rate, speed, triplets, spread, 100 * ranked.map_weighted)
    means = zip(ranked.names, ranked.map_per_attribute, ranked.aps)
    each = {column_of(name): 100 * float(mean) for name, mean, aps in means if len(aps)}
    return dict(zip(COLUMNS, values, strict=True)) | each


def warn_of_collapse(progress: Progress, share: float) -> None:
    """Note whether each batch of the epoch's last quarter is one point, in some space; warn where that
    begins.

    A run may recover, so that the end of the last epoch decides.
    """
    if share < COLLAPSE_FROM:  # embeddings of random weights are near one point, too
        return
    last = [spread for _, _, spread in progress.rows[-max(1, len(progress.rows) // 4) :]]
    mean = sum(last) / len(last)
    if mean < COLLAPSED and not progress.collapsed and processes.is_main():
        log.warning(COLLAPSE_REMEDY.format(mean))
    progress.collapsed = mean < COLLAPSED


def report_unreadable(out: Path, train: Inputs, valid: Inputs) -> None:
    """Write `out/unreadable.json`, the images that cannot be read; no file where all can be.

    A warning where a run that goes on had others before, as its batches are then drawn from other images.
    """
    file, now = out / "unreadable.json", {"train": train.report(), "valid": valid.report()}
    before = read_json(file, "Delete it.") if file.exists() else {}
    if newest_first(out / "checkpoints") and before.get("train", []) != now["train"]:
        log.warning("%s: other images are unreadable than before; batches differ from here on", out)
    if now["train"] or now["valid"]:
        write_json(file, now)
    else:
        file.unlink(missing_ok=True)
