"""Growth: time and memory of training, embedding and evaluation at 1x, 4x and 16x of the data.

    python -m benchmarks.growth                 # about 3 minutes; writes results/growth.csv and growth.png

1x is 1,000 images with 8 labels each. Each stage reads kept features of `lite` from a file, as training does
by default. (They are random numbers here: the time does not depend on their values.)

- training: an epoch, mode spaces, batch 64, CCA with AdamW;
- embedding: `embed_images`, all 8 spaces of each image;
- evaluation: `retrieval_aps`, 250 queries for each attribute against all images: candidates grow, queries do
  not.

Each figure is the median of rounds in fresh processes, sizes in turns. The result is the exponent p of (16x /
1x) = 16^p: 1 is linear. Floor: 1, as every image has to be read; for evaluation n log n, which is 1.12 from
1,000 to 16,000 candidates. An exponent below 1 says that fixed costs still count at 1x. Memory is the most
that the stage adds to its process. Pages of the feature file that are in memory count, although the system
may drop them. As batches take the same memory at any size, the exponent of memory is that of the increase:
(16x - 4x) / (4x - 1x) = 4^p. Checked: the embedding of an image does not depend on the number of images, and
the APs are those of a plain loop.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.common import (
    ROOT,
    Peak,
    Row,
    agree,
    begin,
    in_process,
    make_parser,
    report,
    write_csv,
)

BASE, TIMES, QUERIES, SHAPE = 1000, (1, 4, 16), 250, (152, 8, 8)
STAGES = ("training", "embedding", "evaluation")
COLUMNS = ("stage", "times", "images", "seconds", "added_mib")
CLAIMS = {f"{stage}: memory": "<= 1.1" for stage in STAGES} | {
    "training: time": "<= 1.1",
    "embedding: time": "<= 1.1",
    "evaluation: time": "<= 1.2",
}


def write_features(file: Path, count: int) -> None:
    """Write random numbers, (count, 152, 8, 8) float16, a thousand images at a time."""
    store = np.lib.format.open_memmap(file, "w+", np.float16, (count, *SHAPE))
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        part = store[start : start + 1000]
        part[...] = rng.standard_normal(part.shape, dtype=np.float32)
    store.flush()


def split_of(count: int, root: Path):
    """Make a split with random labels of all attributes; the first images are the queries."""
    from ccakit.data.layout import rows_of
    from ccakit.data.split import Split
    from ccakit.garments.values import GARMENTS

    matrix = np.random.default_rng(1).integers(0, GARMENTS.sizes, (count, len(GARMENTS)))
    rows = rows_of(matrix)
    names = [f"{index:06d}.png" for index in range(count)]
    return Split("train", root, GARMENTS, names, rows, rows[rows[:, 0] < QUERIES], rows)


def inputs_of(split, file: Path):
    from ccakit.data.inputs import FeatureInputs, ImageInputs
    from ccakit.data.transform import ImageTransform

    return FeatureInputs(file, ImageInputs(split, ImageTransform()))


def model_of():
    from ccakit.models.registry import create_model

    torch.manual_seed(0)
    return create_model("cca-type2", conditions=8, freeze="backbone", pretrained=False, head_norm="batchnorm")


def training(split, open_inputs):
    """Give a function that trains an epoch; two steps run before it, on features that are opened for them
    alone."""
    from ccakit.training.batches import Steps
    from ccakit.training.config import TrainConfig
    from ccakit.training.objectives import objective_for

    model, objective = model_of(), objective_for(split, TrainConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(batch, extra) -> None:
        loss = objective.step(model, batch, extra, "all", True).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    first = Steps(objective, 1, open_inputs())
    for index in range(2):
        step(*first[index])
    del first  # the system keeps far more of the file in memory than the images that were read

    def epoch() -> None:
        steps = Steps(objective, 0, open_inputs())
        for index in range(len(steps)):
            step(*steps[index])

    return epoch


def embedding(split, open_inputs):
    """Give a function that embeds all images."""
    from ccakit.evaluation.embedding import embed_images

    model = model_of().eval()
    alone = embed_images(model, open_inputs(), np.arange(8))

    def run() -> None:
        together = embed_images(model, open_inputs())
        agree("embeddings of 8 images and of all", together[:8], alone, 1e-4)

    return run


def evaluation(split, open_inputs):
    """Give a function that ranks random embeddings."""
    from ccakit.metrics import retrieval_aps

    rng = np.random.default_rng(2)
    candidates = rng.standard_normal((len(split.candidates), 128), dtype=np.float32)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    queries = candidates[split.candidates[:, 0] < QUERIES]

    def run() -> None:
        found = retrieval_aps(split.queries, queries, split.candidates, candidates, split.attributes)
        agree("APs and a plain loop's", found.aps[0][:3], _by_loop(split, queries, candidates), 1e-6)

    return run


def _by_loop(split, queries, candidates) -> np.ndarray:
    """Compute the APs of the first three queries of attribute 0."""
    from ccakit.metrics import average_precision

    rows = split.candidates[:, 1] == 0
    images, labels, vectors = split.candidates[rows, 0], split.candidates[rows, 2], candidates[rows]
    aps = []
    for query in np.flatnonzero(split.queries[:, 1] == 0)[:3]:
        order = np.argsort(-(vectors @ queries[query]))
        order = order[images[order] != split.queries[query, 0]]  # a query does not find its own image
        aps.append(average_precision((labels == split.queries[query, 2])[order]))
    return np.array(aps)


def one(stage: str, count: int, file: Path) -> dict:
    """Measure the seconds and bytes of a stage."""
    split = split_of(count, file.parent)
    stages = {"training": training, "embedding": embedding, "evaluation": evaluation}
    run = stages[stage](split, lambda: inputs_of(split, file))
    with Peak() as peak:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "added": peak.bytes}


def _fresh(stage: str, count: int, file: Path, options) -> dict:
    """Run `one` in a fresh process, or with --quick in this one."""
    if options.quick:
        return one(stage, count, file)
    return in_process("growth", "--one", stage, str(count), str(file), threads=options.threads)


def measure(options) -> list[dict]:
    """Measure each stage at each size: a row with the medians of fresh processes, sizes in turns."""
    base, rounds = (250, 1) if options.quick else (BASE, min(options.rounds, 3))
    found: dict[tuple, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {times: Path(folder) / f"{times}.npy" for times in TIMES}
        for times, file in files.items():
            write_features(file, base * times)
        for _ in range(rounds):
            for stage in STAGES:
                for times, file in files.items():
                    result = _fresh(stage, base * times, file, options)
                    found.setdefault((stage, times), []).append(result)
    return [
        {
            "stage": stage,
            "times": times,
            "images": base * times,
            "seconds": round(median(r["seconds"] for r in results), 4),
            "added_mib": round(median(r["added"] for r in results) / 2**20, 2),
        }
        for (stage, times), results in found.items()
    ]


def time_exponent(rows: list[dict], stage: str) -> float:
    """Compute p of (16x / 1x) = 16^p."""
    seconds = {row["times"]: row["seconds"] for row in rows if row["stage"] == stage}
    return math.log(seconds[16] / seconds[1]) / math.log(16)


def memory_exponent(rows: list[dict], stage: str) -> float:
    """Compute p of (16x - 4x) / (4x - 1x) = 4^p; a difference below 1 MiB counts as 1 MiB."""
    added = {row["times"]: row["added_mib"] for row in rows if row["stage"] == stage}
    return math.log(max(added[16] - added[4], 1.0) / max(added[4] - added[1], 1.0)) / math.log(4)


def plot(rows: list[dict], file: Path) -> None:
    """Draw time and memory over the number of images, both axes logarithmic, with a linear line from 1x."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, what, label in zip(axes, ("seconds", "added_mib"), ("seconds", "memory added, MiB")):
        for color, stage in enumerate(STAGES):
            measured = [row for row in rows if row["stage"] == stage]
            x, y = [row["images"] for row in measured], [row[what] for row in measured]
            axis.loglog(x, y, "o-", color=f"C{color}", label=stage)
            axis.loglog(x, [y[0] * n / x[0] for n in x], ":", color=f"C{color}", alpha=0.6)
        axis.set(xlabel="images", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(title="dotted: linear")
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--one", nargs=3, metavar=("STAGE", "IMAGES", "FILE"), help="measure one figure in this process"
    )
    parser.add_argument(
        "--results", type=Path, help="the folder of growth.csv and growth.png (results/; --quick writes none)"
    )
    options = begin(parser, argv)
    if options.one:
        stage, count, file = options.one
        found = one(stage, int(count), Path(file))
        print(json.dumps(found))
        return found
    measured = measure(options)
    folder = options.results or (None if options.quick else ROOT / "results")
    if folder:
        write_csv(folder / "growth.csv", COLUMNS, measured)
        plot(measured, folder / "growth.png")
    rows = []
    for stage in STAGES:
        sizes = [
            f"{row['images']}: {row['seconds']:.3g} s, {row['added_mib']:.0f} MiB"
            for row in measured
            if row["stage"] == stage
        ]
        floor, note = 1.12 if stage == "evaluation" else 1.0, "; ".join(sizes)
        exponent = time_exponent(measured, stage)
        rows.append(Row(f"{stage}: time", exponent, "exponent", floor=floor, note=note))
        rows.append(Row(f"{stage}: memory", memory_exponent(measured, stage), "exponent", floor=1.0))
    return report("growth", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
