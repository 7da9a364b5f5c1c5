"""The benchmark of the memory of epochs: its figures by hand, and that it notices a leak."""

from __future__ import annotations

import mmap
import sys

import pytest
from places import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import memory_of_epochs  # noqa: E402
from benchmarks.common import Disagreement  # noqa: E402
from ccakit.data.drawn import write_garments  # noqa: E402
from ccakit.training.trainer import Trainer  # noqa: E402


def test_growth_by_hand():
    sizes = [10, 40, 50, 55, 60, 62, 64, 66]
    assert memory_of_epochs.growth(sizes) == pytest.approx((6, 6))
    rows = memory_of_epochs.rows_of("kept features", sizes)
    assert [row.met for row in rows] == [None, True] and "62 64 66 MiB" in rows[0].note
    assert memory_of_epochs.rows_of("kept features", [60] * 4 + [60, 64, 68, 72])[1].met is False


@pytest.mark.slow
def test_a_leak_is_noticed_and_so_is_a_run_cut_short(tmp_path, monkeypatch):
    data, kept = tmp_path / "data", []
    write_garments(data, 48, 12, 4, size=32, progress=False)
    real = Trainer.end_epoch

    def leaking(self) -> None:
        real(self)
        kept.append(mmap.mmap(-1, 8 << 20))  # never of what the allocator has kept
        kept[-1].write(b"x" * (8 << 20))

    monkeypatch.setattr(Trainer, "end_epoch", leaking)
    sizes = memory_of_epochs.train("kept features", data, tmp_path / "leaking", 8, 32)
    assert len(sizes) == 8 and not memory_of_epochs.rows_of("kept features", sizes)[1].met
    monkeypatch.setattr(Trainer, "run", lambda self: {"best_valid_map_weighted": 50.0})
    with pytest.raises(Disagreement, match="0 epochs"):
        memory_of_epochs.train("kept features", data, tmp_path / "none", 8, 32)


@pytest.mark.slow
def test_it_is_flat_at_small_size():
    rows = memory_of_epochs.main(["--quick"])["rows"]
    assert [row["what"].split(":")[0] for row in rows] == [
        side for side in memory_of_epochs.SIDES for _ in range(2)
    ]
    assert all(row["met"] in (True, None) for row in rows)
