"""A real ViT, frozen: where to read it, and what all spaces cost beside its own forward.

    make vit                                    # its weights, by pip
    make vit-features                           # its features, in one pass for all blocks
    python -m benchmarks.vit                    # some minutes on 2 quiet cores
    python -m benchmarks.vit --markdown         # the tables of docs/results.md, from results/vit.csv

Every run trains on kept features of one frozen trunk, in mode `spaces`, with equal epochs; only the block
that is read differs, and then the system. The best block is the one with the highest weighted mAP on valid,
of seed 0. At it and at the last block: three seeds of every system, but seed 0 alone of K networks, which
trains K trunks. `lite` at its own size stands beside them, at equal epochs. One row of results/vit.csv a run,
whose settings `variant` names; a run that is there is not made again.

The columns spaces_time and spaces_operations say what all K = 8 spaces of an image cost where CCA reads that
block, as shares of the plain ViT's own forward: times in turns in one process, medians; operations counted.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import ROOT, ROUNDS, alternate, plain_parser, use_threads

RESULTS = ROOT / "results" / "vit.csv"
TRUNK, SIDE = "vit_small_patch14_dinov2", 126
READ_BLOCKS = [8, 12, 6, 10, 4, 9]  # in this order
LITE = "trunk=lite image_size=128 freeze=backbone lr=0.001"
K, BATCH = 8, 8


def variant(block: int) -> str:
    """Name the settings of a run that reads a block."""
    return f"read_block={block}"


def block_of(row: dict) -> int | None:
    """Give the block that a row's run read; None for `lite`."""
    first, *_ = (row["variant"] or "").split() or [""]
    return int(first.removeprefix("read_block=")) if first.startswith("read_block=") else None


def changed(row: dict) -> str:
    """Say what a row's run changed beside the block."""
    return " ".join((row["variant"] or "").split()[1:])


def train(options, models: str, blocks: list[int], seeds: str, variants: tuple[str, ...] = ()) -> list[dict]:
    """Make the runs that are missing; return all rows of the file."""
    from ccakit.benchmark.config import BenchmarkConfig
    from ccakit.benchmark.results import read_rows
    from ccakit.benchmark.runs import benchmark

    benchmark(
        BenchmarkConfig(
            data=options.data, out=options.out, results=options.results, models=models, seeds=seeds,
            modes=("spaces",), variants=(*map(variant, blocks), *variants), budget=options.budget,
            trunk=options.trunk, image_size=options.image_size, freeze="all", lr=3e-4, speed=False,
            pretrained=not options.no_pretrained,
        )
    )  # fmt: skip
    return read_rows(options.results)


def best_block(rows: list[dict]) -> int:
    """Choose the block that reads best on valid, of seed 0."""
    curve = [row for row in rows if row["model"] == "cca-type2" and row["seed"] == 0 and block_of(row)]
    curve = [row for row in curve if not changed(row)]
    return block_of(max(curve, key=lambda row: row["best_valid_map_weighted"]))


def costs(trunk: str, side: int, blocks: list[int], rounds: int) -> dict[int, dict]:
    """Measure what all spaces cost where each block is read, as shares of timm's own forward.

    Random weights: they change no time. Both sides run in turns, on the same images and threads.
    """
    import timm

    from ccakit.models.registry import create_model

    own = dict(head="each", wv="each", adapter=128)  # as `ccakit train` has them by default
    shared = dict(conditions=K, trunk=trunk, image_size=side, pretrained=False, **own)
    sides: dict[int, nn.Module] = {0: timm.create_model(trunk, img_size=side, num_classes=0)}
    sides |= {block: create_model("cca-type2", read_block=block, **shared) for block in blocks}
    images = torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        calls = {str(block): partial(model.eval(), images) for block, model in sides.items()}
        times = alternate(calls, rounds)
        work = {block: operations(model, images) for block, model in sides.items()}
    return {
        block: {"spaces_time": times.ratio(str(block), "0"), "spaces_operations": work[block] / work[0]}
        for block in blocks
    }


def operations(model: nn.Module, images: torch.Tensor) -> int:
    """Count the operations of a forward, attention's products included."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


def add_costs(options, rows: list[dict]) -> None:
    """Measure what rows of CCA lack, and write it into the file."""
    from ccakit.benchmark.results import write_rows

    of_cca = [row for row in rows if row["model"].startswith("cca") and block_of(row)]
    blocks = sorted({block_of(row) for row in of_cca if row.get("spaces_time") is None})
    if blocks:
        every = sorted({block_of(row) for row in of_cca})
        found = costs(options.trunk, options.image_size, every, options.rounds)
        for row in of_cca:
            row |= found[block_of(row)]
        write_rows(options.results, rows)


def markdown(rows: list[dict]) -> str:
    """Make the two tables: CCA by the block it reads, and the systems at two blocks."""
    lines = [
        "| CCA Type-2 in block | seeds | weighted mAP, valid | test | maps that hit | time | operations |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = [row for row in rows if row["model"] == "cca-type2"]
    for block, more in sorted({(block_of(row), changed(row)) for row in ours if block_of(row)}):
        runs = [row for row in ours if (block_of(row), changed(row)) == (block, more)]
        means = [_mean(runs, name) for name in ("best_valid_map_weighted", "map_weighted", "pointing_game")]
        shares = [runs[0].get(name) for name in ("spaces_time", "spaces_operations")]
        shares = ["" if share is None else f"{share:.2f}" for share in shares]
        place = f"{block}, `{more}`" if more else str(block)
        lines.append(f"| {place} | {len(runs)} | {' | '.join(means)} | {' | '.join(shares)} |")
    if lite := [row for row in ours if block_of(row) is None]:
        means = [_mean(lite, name) for name in ("best_valid_map_weighted", "map_weighted", "pointing_game")]
        lines.append(f"| (`lite`, 128 px) | {len(lite)} | {' | '.join(means)} | | |")
    blocks = sorted({block_of(row) for row in rows if row["model"] != "cca-type2"} - {None})
    if not blocks:
        return "\n".join(lines)
    lines += ["", f"| system | {' | '.join(f'block {block}' for block in blocks)} |"]
    lines.append("|---|" + "---|" * len(blocks))
    for model in dict.fromkeys(row["model"] for row in rows):
        frozen = [row for row in rows if row["model"] == model and not changed(row)]
        cells = [_mean([row for row in frozen if block_of(row) == block], "map_weighted") for block in blocks]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: list[dict], name: str) -> str:
    """Write the mean over runs, and the spread where there are several; shares as percent."""
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    if not values:
        return ""
    values = np.array(values) * (100 if name.startswith("pointing") else 1)
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def main(argv: list[str] | None = None) -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/garments"))
    parser.add_argument("--trunk", default=TRUNK)
    parser.add_argument("--image-size", type=int, default=SIDE)
    parser.add_argument("--no-pretrained", action="store_true", help="random weights, for tests")
    parser.add_argument("--read-blocks", type=int, nargs="+", default=READ_BLOCKS)
    parser.add_argument("--systems", default="triplet,tf-csn,tf-asen,cca-type1,networks")
    parser.add_argument("--seeds", default="0,1,2", help="at the best block and the last; K networks: 0")
    parser.add_argument("--budget", default="epochs=3")
    parser.add_argument("--out", type=Path, default=Path("runs/vit"), help="where the run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to add rows to")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each side, for the costs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-lite", action="store_true", help="leave out the runs on lite")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the rows, and stop")
    options = parser.parse_args(argv)
    from ccakit.benchmark.results import read_rows

    if not options.markdown:
        use_threads(options.threads)
        rows = train(options, "cca-type2", options.read_blocks, "0")
        add_costs(options, rows)
        two = sorted({best_block(rows), max(options.read_blocks)})
        if not options.no_lite:
            train(options, "cca-type2", [], "0", (LITE,))
        for system in ("cca-type2", *options.systems.split(",")):
            rows = train(options, system, two, "0" if system == "networks" else options.seeds)
        add_costs(options, rows)
    print(markdown(read_rows(options.results)))


if __name__ == "__main__":
    main()
