"""The paper's recipe on a real ViT, its first steps: how the training of docs/reproduce.md begins.

    make vit                                    # the ViT's weights, by pip
    python data_prep/garments.py --labels one --out data/garments_one
    python -m benchmarks.rehearsal              # some 45 minutes on 2 cores
    python -m benchmarks.rehearsal --markdown   # the table of docs/reproduce.md, from results/rehearsal.csv

All runs see the same number of images, which carry one label each, as in FashionAI. The schedule of the
learning rate is that of a run of this length.

- paper: `--preset paper` as printed, mode triplets, but for the trunk and its size, on one CPU in float32.
- paper, lr 1e-5: the same, with a tenth of the learning rate.
- paper, mode spaces: as printed, with every comparison of a batch in the place of drawn triplets.
- ours, block N: our own training, with the trunk frozen and read at block N.
"""

from __future__ import annotations

import argparse
import platform
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from benchmarks.common import ROOT, plain_parser, use_threads, write_csv

RESULTS = ROOT / "results" / "rehearsal.csv"
TRUNK, SIDE, READ_BLOCKS = "vit_small_patch14_dinov2", 126, (6, 12)
TRIPLETS, EPOCHS = 2048, 5  # 32 batches of 64 triplets, which are some 6,000 images, as many as train has
COLUMNS = ("run", "images", "step", "loss", "valid_map_weighted", "minutes", "trunk", "torch", "device")


def configs(options) -> dict:
    """Make the settings of each run, by its name."""
    from ccakit.training.config import TrainConfig

    shared = dict(
        data=options.data,
        trunk=options.trunk,
        image_size=options.image_size,
        pretrained=not options.no_pretrained,
        budget=f"epochs={options.epochs}",
        triplets_per_epoch=options.triplets,
    )
    here = dict(workers=0, mixed_precision="no")  # one CPU
    paper = TrainConfig(**{**TrainConfig.presets["paper"], **here, **shared})
    ours = TrainConfig(**shared, freeze="all", lr=3e-4)
    return {
        "paper": paper,
        "paper, lr 1e-5": replace(paper, lr=1e-5),
        "paper, mode spaces": replace(paper, mode="spaces"),
        **{f"ours, block {block}": replace(ours, read_block=block) for block in options.read_blocks},
    }


def curve(name: str, config, out: Path) -> list[dict]:
    """Train one run, or go on with it; return a row for each look at valid."""
    import ccakit

    folder = out / re.sub(r"\W+", "_", name)
    resume = (folder / "checkpoints").is_dir()
    _, facts = ccakit.train(replace(config, out=folder, resume=resume))
    log = pd.read_csv(folder / "log.csv")
    done = log["step"] / facts["steps"]
    rows = log.assign(
        run=name,
        images=(done * facts["images"]).round().astype(int),
        minutes=(done * facts["train_seconds"] / 60).round(1),
        trunk=f"{config.trunk} at {config.image_size}",
        torch=torch.__version__,
        device=f"CPU {platform.machine()}, {torch.get_num_threads()} threads",
    )
    return rows.reindex(columns=COLUMNS).to_dict("records")


def markdown(rows: list[dict]) -> str:
    """Make the table: weighted mAP on valid by images seen, a line for each run."""
    runs: dict[str, list[dict]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    looks = [f"{round(int(row['images']), -2):,}" for row in rows if row["run"] == rows[0]["run"]]
    lines = [f"| images seen | {' | '.join(looks)} | batches | minutes |"]
    lines += ["|---|" + "---|" * (len(looks) + 2)]
    for name, run in runs.items():
        maps = [f"{float(row['valid_map_weighted']):.1f}" for row in run]
        maps += [""] * (len(looks) - len(maps))
        lines.append(f"| {name} | {' | '.join(maps)} | {run[-1]['step']} | {float(run[-1]['minutes']):.0f} |")
    return "\n".join(lines)


def read(file: Path) -> list[dict]:
    """Read the rows of an earlier run; none where there is no file."""
    return pd.read_csv(file, dtype=str).to_dict("records") if file.exists() else []


def parser() -> argparse.ArgumentParser:
    """Create the script's parser."""
    parser = plain_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/garments_one"))
    parser.add_argument("--trunk", default=TRUNK)
    parser.add_argument("--image-size", type=int, default=SIDE)
    parser.add_argument("--no-pretrained", action="store_true", help="random weights, for tests")
    parser.add_argument("--read-blocks", type=int, nargs="+", default=READ_BLOCKS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--triplets", type=int, default=TRIPLETS, help="an epoch, where they are drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/rehearsal"), help="where the run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to add rows to")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="print the table of the rows, and stop")
    return parser


def main(argv: list[str] | None = None) -> None:
    options = parser().parse_args(argv)
    rows = read(options.results)
    if not options.markdown:
        use_threads(options.threads)
        for name, config in configs(options).items():
            if name not in {row["run"] for row in rows}:
                rows += curve(name, config, options.out)
                write_csv(options.results, COLUMNS, rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
