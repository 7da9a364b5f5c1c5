"""Growth: time and memory of training, embedding and evaluation at 1x, 4x and 16x of the data.

    python -m benchmarks.growth                 # about 3 minutes; writes results/growth.csv and results/growth.png

1x is 1,000 images with 8 labels each; what is measured reads kept features of `lite` (random numbers here: time does
not depend on what they say) from a file, as training does by default:

- training: an epoch, mode spaces, batch 64, CCA with AdamW;
- embedding: `embed_images`, all 8 spaces of each image;
- evaluation: `retrieval_aps`, 250 queries an attribute against all images, so that candidates grow and queries do not.

Each figure is of a fresh process, sizes in turns, the median of the rounds. What is told is the exponent p of
(16x / 1x) = 16^p: 1 is linear. Floor: 1, as every image has to be read; for evaluation n log n, which from 1,000 to
16,000 candidates is 1.12. Below 1: fixed costs still weigh at 1x. Memory is what the stage adds to its process at
worst; pages of the feature file that are in memory count, although the system may drop them. As batches take memory of
their own, whatever the size, its exponent is that of the increase: (16x - 4x) / (4x - 1x) = 4^p. Checked: an image's
embedding does not depend on how many there are, and the APs are those of a plain loop.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.common import ROOT, Peak, Row, agree, begin, in_process, options, report

BASE, TIMES, QUERIES, SHAPE = 1000, (1, 4, 16), 250, (152, 8, 8)
STAGES = ("training", "embedding", "evaluation")
COLUMNS = ("stage", "times", "images", "seconds", "added_mib")
LIMITS = {"training": "<= 1.1", "embedding": "<= 1.1", "evaluation": "<= 1.2"}


def write_features(file: Path, count: int) -> None:
    """(count, 152, 8, 8) float16 random numbers, in parts."""
    store = np.lib.format.open_memmap(file, "w+", np.float16, (count, *SHAPE))
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        part = store[start : start + 1000]
        part[...] = rng.standard_normal(part.shape, dtype=np.float32)
    store.flush()


def split_of(count: int, root: Path):
    """A split with random labels of all attributes; the first images are the queries."""
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
    """A function that trains an epoch; some steps are done already, on features opened for them alone."""
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
    del first  # and with it what the system keeps in memory of the file, far more than the images asked for
    return lambda: [step(*batch) for batch in _each(Steps(objective, 0, open_inputs()))]


def _each(steps):
    return (steps[index] for index in range(len(steps)))


def embedding(split, open_inputs):
    from ccakit.evaluation.embedding import embed_images

    model = model_of().eval()
    alone = embed_images(model, open_inputs(), np.arange(8))

    def run() -> None:
        whole = embed_images(model, open_inputs())
        agree("embeddings of 8 images and of all", whole[:8], alone, 1e-4)

    return run


def evaluation(split, open_inputs):
    """A function that ranks random embeddings."""
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
    """AP of the first three queries of attribute 0."""
    from ccakit.metrics import average_precision

    rows, of = split.candidates, split.candidates[:, 1] == 0
    first = np.flatnonzero(split.queries[:, 1] == 0)[:3]
    return np.array(
        [
            average_precision(
                (rows[of, 2] == split.queries[q, 2])[np.argsort(-(candidates[of] @ queries[q]))]
            )
            for q in first
        ]
    )


def one(stage: str, count: int, file: Path) -> dict:
    """Seconds and bytes of a stage."""
    split = split_of(count, file.parent)
    stages = {"training": training, "embedding": embedding, "evaluation": evaluation}
    run = stages[stage](split, lambda: inputs_of(split, file))
    with Peak() as peak:
        begun = time.perf_counter()
        run()
        seconds = time.perf_counter() - begun
    return {"seconds": seconds, "added": peak.bytes}


def _fresh(stage: str, count: int, file: Path, given) -> dict:
    """`one` in a process of its own; in this one where it need not mean anything."""
    if given.quick:
        return one(stage, count, file)
    return in_process("growth", "--one", stage, str(count), str(file), threads=given.threads)


def measure(given) -> list[dict]:
    """A row a stage and size: medians of fresh processes, sizes in turns."""
    base, rounds = (250, 1) if given.quick else (BASE, min(given.rounds, 3))
    found: dict[tuple, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {times: Path(folder) / f"{times}.npy" for times in TIMES}
        for times, file in files.items():
            write_features(file, base * times)
        for _ in range(rounds):
            for stage in STAGES:
                for times, file in files.items():
                    result = _fresh(stage, base * times, file, given)
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
    """p of (16x / 1x) = 16^p."""
    of = {row["times"]: row["seconds"] for row in rows if row["stage"] == stage}
    return math.log(of[16] / of[1]) / math.log(16)


def memory_exponent(rows: list[dict], stage: str) -> float:
    """p of (16x - 4x) / (4x - 1x) = 4^p; differences below 1 MiB count as that."""
    of = {row["times"]: row["added_mib"] for row in rows if row["stage"] == stage}
    return math.log(max(of[16] - of[4], 1.0) / max(of[4] - of[1], 1.0)) / math.log(4)


def plot(rows: list[dict], file: Path) -> None:
    """Time and memory over images, both axes logarithmic, with a linear line from 1x."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, what, label in zip(axes, ("seconds", "added_mib"), ("seconds", "memory added, MiB")):
        for color, stage in enumerate(STAGES):
            of = [row for row in rows if row["stage"] == stage]
            x, y = [row["images"] for row in of], [row[what] for row in of]
            axis.loglog(x, y, "o-", color=f"C{color}", label=stage)
            axis.loglog(x, [y[0] * n / x[0] for n in x], ":", color=f"C{color}", alpha=0.6)
        axis.set(xlabel="images", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(title="dotted: linear")
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def save(rows: list[dict], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "growth.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, folder / "growth.png")


def main(argv: list[str] | None = None) -> dict:
    parser = options(__doc__)
    parser.add_argument(
        "--one", nargs=3, metavar=("STAGE", "IMAGES", "FILE"), help="one figure, in a fresh process"
    )
    parser.add_argument(
        "--results", type=Path, help="where growth.csv and .png go (results/; not written by --quick)"
    )
    given = begin(parser, argv)
    if given.one:
        found = one(given.one[0], int(given.one[1]), Path(given.one[2]))
        print(json.dumps(found))
        return found
    measured = measure(given)
    folder = given.results or (None if given.quick else ROOT / "results")
    if folder:
        save(measured, folder)
    rows = []
    for stage in STAGES:
        told = "; ".join(
            f"{r['images']}: {r['seconds']:.3g} s, {r['added_mib']:.0f} MiB"
            for r in measured
            if r["stage"] == stage
        )
        least = 1.12 if stage == "evaluation" else 1.0
        rows.append(
            Row(f"{stage}: time", time_exponent(measured, stage), "exponent", LIMITS[stage], least, told)
        )
        rows.append(Row(f"{stage}: memory", memory_exponent(measured, stage), "exponent", "<= 1.1", 1.0))
    return report("growth", rows, given)


if __name__ == "__main__":
    main()
