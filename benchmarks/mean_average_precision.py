"""Mean average precision: the same values as four other ways of computing it, several times as fast.

    python -m benchmarks.mean_average_precision              # some 15 minutes; peers need '.[bench]'
    python -m benchmarks.mean_average_precision --sizes fashionai

Sizes: FashionAI's test protocol (3,600 queries, 14,400 candidates, 8 attributes with the real counts of
values, E = 768) and one condition with 20,000 queries and 100,000 candidates. An embedding is the centre of
its value, plus noise.

Sides, on the same embeddings and threads:

- ours: `ccakit.metrics.retrieval_aps`;
- floor: the bare matrix product, in the same blocks of queries, and the fastest known sort of its float32
  rows (NumPy's, which uses SIMD; torch's does not), on as many threads as ours, with its input ready in
  memory;
- loop: one query after the other, in Python, as in the evaluation of ASEN and of its successors;
- sklearn: `average_precision_score` of each query;
- torchmetrics: `RetrievalMAP`. It counts no candidate with a score of 0 or less as relevant
  (`torch.where(preds > 0, target, 0)`). That is right for probabilities and wrong for cosines, with which its
  value differs (a row shows it). So it gets 1 + cosine here. In float32 some different cosines then become
  equal, hence its wider tolerance;
- pytorch-metric-learning: `AccuracyCalculator` with its exact nearest neighbours. (It leaves out queries
  without a relevant candidate, which count as 0 by ASEN's rules; these data have none.)

A peer that would need minutes ranks a part of the queries. Its time is scaled to all of them, and the note
says so.

The difference between ours and the floor: rows are gathered by label and become integer keys with the
relevance in their lowest bit (7 passes over pieces that stay in the cache: about 1.5 ns for a pair, beside 2
to 3 ns for the sort and 4 to 8 for 768 multiply-adds). Then the ranks of the relevant candidates are gathered
from the sorted keys (0.6 to 2 ns). Ours also copies the rows of a condition out of the full table, where they
are not together, and checks their length.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks.common import ROOT, Peak, Row, agree, alternate, begin, in_process, make_parser, report

SIZES = {"fashionai": None, "large": (20_000, 100_000)}
WIDTH, VALUES, BLOCK = 768, 10, 192 << 20
PEERS = ("loop", "sklearn", "torchmetrics", "pytorch-metric-learning")
CLAIMS = {f"{size}: {peer} / ours": ">= 5" for size in SIZES for peer in PEERS} | {
    "fashionai: ours / floor": "<= 1.3",
    "large: ours / floor": "<= 1.3",
    "large: peak memory": "<= 1",
}
TOLERANCE = {"torchmetrics": 1e-4}  # see above; 1e-6 for the others
SUBSET = {"fashionai": 3_600, "large": 100}  # queries of the peers


def embeddings(labels: np.ndarray, centres: np.ndarray, seed: int, noise: float = 3.0) -> np.ndarray:
    """Make embeddings, (n, E) float32 of length 1: the centre of a value, and noise."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal((len(labels), centres.shape[1]), dtype=np.float32)
    out *= noise / centres.shape[1] ** 0.5
    out += centres[labels]
    out /= np.sqrt(np.einsum("ij,ij->i", out, out))[:, None]
    return out


def labels_of(size: str, quick: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the labels of queries and of candidates for each condition."""
    if size == "fashionai":
        counts = json.loads((ROOT / "ccakit/audit/protocol.json").read_text("utf-8"))
        counts = counts["datasets"]["FashionAI"]["splits"]["test"]
        return [
            tuple(np.repeat(np.arange(len(side)), np.array(side) // (8 if quick else 1)) for side in pair)
            for pair in zip(counts["queries"].values(), counts["candidates"].values())
        ]
    queries, candidates = (200, 1_000) if quick else SIZES[size]
    rng = np.random.default_rng(0)
    return [(rng.integers(VALUES, size=queries), rng.integers(VALUES, size=candidates))]


def make(size: str, quick: bool) -> dict:
    """Make the arguments of `retrieval_aps`."""
    from ccakit.attributes import Attributes

    pairs = labels_of(size, quick)
    width = 64 if quick else WIDTH
    centres = np.random.default_rng(0).standard_normal((len(pairs), 64, width), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=2, keepdims=True)
    found = {}
    for side, name in enumerate(("queries", "candidates")):
        labels = [pair[side] for pair in pairs]
        conditions = np.repeat(np.arange(len(pairs)), list(map(len, labels)))
        images = np.arange(len(conditions)) + 10**6 * side  # queries are not candidates
        found[name] = np.stack([images, conditions, np.concatenate(labels)], axis=1)
        flat = centres.reshape(-1, width)
        found[f"{name}_embeddings"] = embeddings(conditions * 64 + found[name][:, 2], flat, side)
    found["attributes"] = Attributes.numbered({f"attribute{c}": 64 for c in range(len(pairs))})
    return found


def ours(data: dict) -> list[np.ndarray]:
    """Compute the APs of each condition by ccakit."""
    from ccakit.metrics import retrieval_aps

    names = ("queries", "queries_embeddings", "candidates", "candidates_embeddings", "attributes")
    return list(retrieval_aps(*(data[name] for name in names)).aps)


def conditions(data: dict, count: int | None = None):
    """Give (queries, their labels, candidates, their labels) of each condition.

    count: the number of queries in all, evenly spread; by default all queries.
    """
    step = max(1, len(data["queries"]) // count) if count else 1
    for condition in range(len(data["attributes"])):
        q, c = (np.flatnonzero(data[name][:, 1] == condition) for name in ("queries", "candidates"))
        q = q[::step]
        yield (
            data["queries_embeddings"][q],
            data["queries"][q, 2],
            data["candidates_embeddings"][c],
            data["candidates"][c, 2],
        )


def floor(ready: list, threads: int) -> None:
    """Compute the product and the sort, and nothing else."""
    with ThreadPoolExecutor(threads) as pool:
        for block in blocks(ready):
            list(pool.map(lambda part: part.sort(axis=1), np.array_split(block, 4 * threads)))


def blocks(ready: list):
    """Compute the products, a block of queries at a time."""
    for queries, _, candidates, _ in ready:
        step = max(1, BLOCK // (4 * len(candidates)))
        for start in range(0, len(queries), step):
            yield queries[start : start + step] @ candidates.T


def loop(queries, query_labels, candidates, candidate_labels) -> np.ndarray:
    """Compute as ASEN does: sort the row of each query, and walk along it."""
    aps = []
    for row, label in zip(queries, query_labels):
        order, hits, total = np.argsort(candidates @ row)[::-1], 0, 0.0
        for rank, candidate in enumerate(order, 1):
            if candidate_labels[candidate] == label:
                hits += 1
                total += hits / rank
        aps.append(total / hits if hits else 0.0)
    return np.array(aps)


def by_sklearn(queries, query_labels, candidates, candidate_labels) -> np.ndarray:
    from sklearn.metrics import average_precision_score

    pairs = zip(queries, query_labels)
    aps = [average_precision_score(candidate_labels == label, candidates @ row) for row, label in pairs]
    return np.array(aps)


def by_torchmetrics(queries, query_labels, candidates, candidate_labels, shift: float = 1.0) -> np.ndarray:
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    scores = torch.from_numpy(queries @ candidates.T + np.float32(shift))
    relevant = torch.from_numpy(query_labels[:, None] == candidate_labels)
    index = torch.arange(len(queries))[:, None].expand_as(scores)
    metric = RetrievalMAP(empty_target_action="neg")
    metric.update(scores.flatten(), relevant.flatten(), indexes=index.flatten())
    return np.array([float(metric.compute())])


def by_metric_learning(queries, query_labels, candidates, candidate_labels) -> np.ndarray:
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    knn = CustomKNN(CosineSimilarity(), batch_size=256)
    calculator = AccuracyCalculator(
        include=("mean_average_precision",),
        k=None,
        knn_func=knn,
        kmeans_func=lambda *_: None,
        device=torch.device("cpu"),
    )
    tensors = [torch.from_numpy(x) for x in (queries, query_labels, candidates, candidate_labels)]
    return np.array([calculator.get_accuracy(*tensors)["mean_average_precision"]])


WAYS = dict(zip(PEERS, (loop, by_sklearn, by_torchmetrics, by_metric_learning)))


def present() -> list[str]:
    """Give the peers that are installed."""
    from importlib.util import find_spec

    modules = {"torchmetrics": "torchmetrics", "pytorch-metric-learning": "pytorch_metric_learning"}
    return [peer for peer in PEERS if peer not in modules or find_spec(modules[peer])]


def mean_of(way, data: dict, count: int) -> np.ndarray:
    """Compute the mAP of each condition by a peer, over a part of the queries."""
    return np.array([np.mean(way(*each)) for each in conditions(data, count)])


def check(data: dict, count: int) -> dict[str, float]:
    """Compare the mAPs of each peer with ours, on the peers' queries; Disagreement where they differ too
    much."""
    step = max(1, len(data["queries"]) // count)
    mine = np.array([np.mean(aps[::step]) for aps in ours(data)])
    return {
        peer: agree(f"ours and {peer}", mine, mean_of(WAYS[peer], data, count), TOLERANCE.get(peer, 1e-6))
        for peer in present()
    }


def measure(size: str, options) -> list[Row]:
    """Measure one size: its rows."""
    data = make(size, options.quick)
    count = 40 if options.quick else SUBSET[size]
    few = min(count, 200)
    differences = check(data, few)
    cosines = mean_of(partial(by_torchmetrics, shift=0.0), data, few) if "torchmetrics" in present() else None
    ready = list(conditions(data))
    sides = {
        "ours": lambda: ours(data),
        "floor": lambda: floor(ready, options.threads),
        "product": lambda: [None for _ in blocks(ready)],
    }
    sides |= {peer: partial(mean_of, WAYS[peer], data, count) for peer in present()}
    small = size == "fashionai" or options.quick
    times = alternate(sides, options.rounds if small else min(options.rounds, 3), warm=int(small))
    ratio, spread = times.ratio("ours", "floor"), times.spread("ours", "floor")
    product = f"of which the matrix product takes {times['product']:.3g}"
    rows = [
        Row(f"{size}: ours / floor", ratio, "of its time", floor=1.0, note=spread),
        Row(f"{size}: ours", times["ours"], "s", floor=times["floor"], note=product),
    ]
    part = sum(len(each[0]) for each in conditions(data, count)) / len(data["queries"])
    rows += [_peer(size, peer, times, part, differences[peer]) for peer in present()]
    rows += [
        Row(f"{size}: {peer}", float("nan"), "s", note="not installed: pip install '.[bench]'")
        for peer in PEERS
        if peer not in present()
    ]
    if cosines is not None:
        off = 100 * (cosines.mean() - mean_of(by_torchmetrics, data, few).mean())
        note = "as it counts no candidate with a cosine of 0 or less as relevant"
        rows.append(Row(f"{size}: torchmetrics, given cosines", off, "points of mAP", note=note))
    return rows + _memory(size, options)


def _peer(size: str, peer: str, times, part: float, difference: float) -> Row:
    note = f"mAP differs by {difference:.1e}, {times[peer] / part:.3g} s"
    if part < 1:
        note += f" (scaled up from {100 * part:.2g}% of the queries)"
    return Row(f"{size}: {peer} / ours", times.ratio(peer, "ours") / part, "times its time", note=note)


def _memory(size: str, options) -> list[Row]:
    flags = ["--memory", size, *(["--quick"] if options.quick else [])]
    found = in_process("mean_average_precision", *flags, threads=options.threads)
    mib = {name: f"{count / 2**20:.0f} MiB" for name, count in found.items()}
    note = f"of the process; embeddings {mib['data']}; ranking adds {mib['added']}"
    return [Row(f"{size}: peak memory", found["peak"] / 2**30, "GiB", floor=found["data"] / 2**30, note=note)]


def memory(size: str, quick: bool) -> dict:
    """Measure bytes: the peak of the process while it ranks, the embeddings, and what ranking adds."""
    data = make(size, quick)
    with Peak() as peak:
        ours(data)
    held = data["queries_embeddings"].nbytes + data["candidates_embeddings"].nbytes
    return {"peak": peak.before + peak.bytes, "added": peak.bytes, "data": held}


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument(
        "--memory", metavar="SIZE", help="rank once in this process, and give the memory it takes"
    )
    known = parser.parse_args(argv)
    if known.memory:  # before torch is imported, which would count
        found = memory(known.memory, known.quick)
        print(json.dumps(found))
        return found
    options, rows = begin(parser, argv), []
    for size in options.sizes:
        rows += measure(size, options)
    return report("mean_average_precision", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
