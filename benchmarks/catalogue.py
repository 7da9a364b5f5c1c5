"""The catalogue: indexing against the network alone, and searches at 10^4, 10^5 and 10^6 items.

    python -m benchmarks.catalogue              # 10^4 and 10^5 items; writes results/catalogue.csv
    python -m benchmarks.catalogue --sizes 10000 100000 1000000
    python -m benchmarks.catalogue --only kinds --sizes 100000   # kinds of index, compared
    python -m benchmarks.catalogue --markdown   # the tables of docs/catalogue.md, from results/catalogue.csv

Indexing: `fill` makes a catalogue of JPEG files of 256 pixels (drawn garments, quality 90) with the demo's
network, CCA on `lite`; beside it, in turns, the network alone, `encode`, on the same pictures, decoded
before: a batch at a time on all threads, and a batch a thread; the faster of both counts. The ratio of the
rates is what decoding, hashing and writing leave of the network's.

Searches: items of 8 spaces of 128 numbers in float16, with two columns. Vectors are drawn around embeddings
of drawn garments: between two of them, with noise. Each search is `Catalogue.search` by embeddings; the sides
of a size take turns, search by search, in one process:

- one condition, three conditions, one with a filter that an item in two passes: by the index where there is
  one (from 50,000 items on), and one condition by exact search;
- NumPy: the product of all vectors of one space, float32, with the query, and argpartition;
- FAISS, flat and HNSW (M 32, efConstruction 40, efSearch 64), on the same vectors.

NumPy and FAISS hold a space in memory and give row numbers; the catalogue reads its vectors from disk, leaves
out what is missing, and gives a frame with the columns. Recall is the share of NumPy's ten nearest. Memory is
what a fresh process takes at most for searches in one space, above what it has after opening the catalogue.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import (
    ROOT,
    Peak,
    Row,
    alternate,
    begin,
    in_process,
    machine,
    make_parser,
    read_csv,
    report,
    with_limits,
    write_csv,
)

SPACES, WIDTH = 8, 128
RESULTS = ROOT / "results" / "catalogue.csv"
COLUMNS = ("what", "value", "unit", "limit", "met", "floor", "note", "machine", "threads", "load")
CLAIMS = {
    "indexing / the network alone": ">= 0.85",
    "1,000,000: one condition, recall@10": ">= 0.95",
    "1,000,000: one condition, p95": "<= 60",
    "1,000,000: memory of a search": "<= 500",
}


def demo_model():
    """Create the demo's network, of random weights: its speed does not depend on them."""
    from ccakit.attributes import Attributes
    from ccakit.data.transform import ImageTransform
    from ccakit.hub.pretrained import PretrainedModel
    from ccakit.models.registry import create_model
    from ccakit.models.saved import SavedModel

    torch.manual_seed(0)
    recipe = dict(
        name="cca-type2", trunk="lite", conditions=SPACES, freeze="backbone", head="each", wv="each"
    )
    network = create_model(**recipe, pretrained=False).eval()
    attributes = Attributes.numbered({f"attribute {k}": 2 for k in range(SPACES)})
    return PretrainedModel(SavedModel(network, attributes, ImageTransform(network.trunk.image_size), recipe))


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Write drawn garments as JPEG files of 256 x 256 pixels."""
    from ccakit.garments.draw import draw_garment

    files = [folder / f"{index:05d}.jpg" for index in range(count)]
    folder.mkdir()
    for index, file in enumerate(files):
        cv2.imwrite(str(file), draw_garment(index, 256).image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return files


def indexing(options, folder: Path) -> list[Row]:
    """Measure `fill` on new pictures beside the network alone."""
    from ccakit.catalogue.index import fill
    from ccakit.catalogue.items import items_of_folder
    from ccakit.data.images import read_image
    from ccakit.data.inputs import core_threads

    count = 64 if options.quick else 512
    model, files = demo_model(), write_pictures(folder / "photos", count)
    transform, network = model.transform, model.model
    inputs = torch.stack([transform(read_image(file, at_least=transform.at_least)) for file in files])
    batches, made = inputs.split(64), []

    @torch.inference_mode()
    def encode(batch: torch.Tensor) -> None:
        network.encode(batch)

    def index() -> None:
        made.append(folder / f"catalogue {len(made)}")
        fill(str(made[-1]), model, "demo", items_of_folder(folder / "photos"))

    sides = {
        "fill": index,
        "all threads": lambda: [encode(batch) for batch in batches],
        "a batch a thread": lambda: list(core_threads().map(encode, batches)),
    }
    times = alternate(sides, min(options.rounds, 3), warm=0 if options.quick else 1)
    alone = min(("all threads", "a batch a thread"), key=lambda side: times[side])
    note = f"the network alone ({alone}): {count / times[alone]:.0f}; {times.spread(alone, 'fill')}"
    return [
        Row("indexing", count / times["fill"], "images/s", floor=count / times[alone], note=note),
        Row("indexing / the network alone", times.ratio(alone, "fill"), "of its rate"),
    ]


def base_vectors(options) -> np.ndarray:
    """Embed drawn garments: (n, K, E), by the run of the demo where it is there, else by its network."""
    from ccakit.garments.draw import draw_garment
    from ccakit.hub.pretrained import load

    run = next(
        (
            ROOT / "runs" / name
            for name in ("demo", "smoke")
            if (ROOT / "runs" / name / "model.json").exists()
        ),
        None,
    )
    model = demo_model() if run is None else load(run)
    pictures = [draw_garment(index, 224).image for index in range(32 if options.quick else 256)]
    return model.spaces(pictures).numpy()


def draw_vectors(base: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw (count, K, E) float32 of length 1: between two of the base, with noise of half their length."""
    one, other = rng.integers(0, len(base), (2, count))
    share = rng.random((count, 1, 1), np.float32)
    vectors = share * base[one] + (1 - share) * base[other]
    vectors += rng.standard_normal(vectors.shape, np.float32) * (0.5 / WIDTH**0.5)
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


def write_catalogue(uri: str, base: np.ndarray, count: int) -> np.ndarray:
    """Write a catalogue of so many drawn items; return the vectors of its first space, as they lie there."""
    import pyarrow as pa

    from ccakit.catalogue.columns import add_columns
    from ccakit.catalogue.store import About, create_table, open_table, space_columns

    rng, kept = np.random.default_rng(1), []
    names = tuple(f"attribute {k}" for k in range(SPACES))
    create_table(uri, About("0" * 16, names, space_columns(names), "photos", "demo"), WIDTH)
    table, about = open_table(uri)
    add_columns(
        uri, table, pa.table({"price": pa.array([], pa.float64()), "brand": pa.array([], pa.string())})
    )
    schema = pa.schema([field.remove_metadata() for field in table.schema])
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        vectors = draw_vectors(base, size, rng).astype(np.float16)
        ids = [f"{start + index:09d}" for index in range(size)]
        columns = {
            "id": ids,
            "path": ids,
            "image_hash": ids,
            "row_hash": [""] * size,
            "missing": [False] * size,
        }
        columns |= {
            "price": rng.random(size) * 100,
            "brand": [f"brand {n}" for n in rng.integers(0, 50, size)],
        }
        for k, name in enumerate(about.spaces):
            flat = pa.array(np.ascontiguousarray(vectors[:, k]).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
        table.add(pa.table([columns[name] for name in schema.names], schema=schema))
        kept.append(vectors[:, 0])
    return np.concatenate(kept)


def by_numpy(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    cosine = vectors @ query
    best = np.argpartition(-cosine, 10)[:10]
    return best[np.argsort(-cosine[best])]


def faiss_sides(vectors: np.ndarray, threads: int) -> dict:
    """Build FAISS's indexes of a space: name -> a function of a query that gives rows; {} without FAISS."""
    try:
        import faiss
    except ImportError:
        return {}
    faiss.omp_set_num_threads(threads)
    flat, hnsw = faiss.IndexFlatIP(WIDTH), faiss.IndexHNSWFlat(WIDTH, 32, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction, hnsw.hnsw.efSearch = 40, 64
    sides = {}
    for name, index in (("FAISS flat", flat), ("FAISS HNSW", hnsw)):
        started = time.perf_counter()
        index.add(vectors)
        print(f"  built {name} of {len(vectors):,} in {time.perf_counter() - started:.1f} s", flush=True)
        sides[name] = lambda query, index=index: index.search(query[None], 10)[1][0]
    return sides


def searches(options, folder: Path, count: int, base: np.ndarray) -> list[Row]:
    """Measure searches in a catalogue of so many items."""
    from ccakit.catalogue.search import open_catalogue
    from ccakit.catalogue.upkeep import FROM_ROWS, folder_bytes, optimize

    uri, name = str(folder / f"items {count}"), f"{count:,}"
    started = time.perf_counter()
    stored = write_catalogue(uri, base, count)
    written = time.perf_counter() - started
    catalogue = open_catalogue(uri)
    started = time.perf_counter()
    optimize(catalogue, keep_days=0, queries=0)
    built = time.perf_counter() - started
    rows = [
        Row(f"{name}: writing", written, "s", note="10 columns, 20,000 rows a commit"),
        Row(
            f"{name}: size",
            folder_bytes(Path(uri)) / 2**20,
            "MiB",
            floor=count * SPACES * WIDTH * 2 / 2**20,
        ),
        Row(f"{name}: compaction and indexes", built, "s", note="" if count >= FROM_ROWS else "no index"),
    ]
    vectors = stored.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = draw_vectors(base, 10 if options.quick else options.queries, np.random.default_rng(2))
    three = {0: 1.0, 1: 0.5, 2: 2.0}
    sides = {
        "one condition": lambda q: catalogue.search(q, 0),
        "three conditions": lambda q: catalogue.search(q, three),
        "one, with a filter": lambda q: catalogue.search(q, 0, where="price < 50"),
        "one, exact": lambda q: catalogue.search(q, 0, exact=True),
        "NumPy": lambda q: by_numpy(vectors, q[0]),
    }
    for side, search in faiss_sides(vectors, options.threads).items():
        sides[side] = lambda q, search=search: search(q[0])
    seconds, hits = {side: [] for side in sides}, {side: [] for side in sides}
    for number, query in enumerate(queries):
        for side, search in sides.items():
            started = time.perf_counter()
            found = search(query)
            if number:  # the first of each side warms it
                seconds[side].append(time.perf_counter() - started)
                rows_found = found if isinstance(found, np.ndarray) else found["id"].astype(int)
                hits[side].append({*map(int, rows_found)})
    for side in sides:
        rows += [
            Row(f"{name}: {side}, p50", 1000 * float(np.median(seconds[side])), "ms"),
            Row(f"{name}: {side}, p95", 1000 * float(np.quantile(seconds[side], 0.95)), "ms"),
        ]
        if side not in ("NumPy", "three conditions", "one, with a filter"):
            shares = [len(mine & true) / 10 for mine, true in zip(hits[side], hits["NumPy"])]
            rows.append(Row(f"{name}: {side}, recall@10", float(np.mean(shares)), "of NumPy's ten"))
    memory = in_process("catalogue", "--memory", uri, threads=options.threads)["mib"]
    return [*rows, Row(f"{name}: memory of a search", memory, "MiB", note="30 searches in one space")]


def kinds(options, folder: Path, count: int, base: np.ndarray) -> list[Row]:
    """Measure kinds of index on one space: time to build, and recall without and with an exact comparison."""
    from lancedb.index import HnswSq, IvfRq, IvfSq

    from ccakit.catalogue.search import PROBES, REFINE
    from ccakit.catalogue.store import open_table

    uri = str(folder / "kinds")
    vectors = write_catalogue(uri, base, count).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table, about = open_table(uri)
    space, rows = about.spaces[0], []
    queries = draw_vectors(base, options.queries, np.random.default_rng(2))[:, 0]
    for kind in (IvfSq, HnswSq, IvfRq):
        name, started = f"{count:,}: {kind.__name__}", time.process_time()
        table.create_index(space, config=kind(distance_type="cosine"), replace=True)
        rows.append(Row(f"{name}, build", time.process_time() - started, "s of a core"))
        for refine in (None, REFINE, 10):
            hits = 0
            for query in queries:
                search = table.search(query, vector_column_name=space).distance_type("cosine").nprobes(PROBES)
                search = search if refine is None else search.refine_factor(refine)
                found = search.select(["id", "_distance"]).limit(10).to_arrow()["id"].to_pylist()
                hits += len({*map(int, found)} & {*by_numpy(vectors, query).tolist()})
            compared = "" if refine is None else f", {10 * refine} compared exactly"
            rows.append(Row(f"{name}{compared}, recall@10", hits / len(queries) / 10, "of NumPy's ten"))
    return rows


def memory_of(uri: str) -> dict:
    """Measure, in this process, the memory of 30 searches in one space."""
    from ccakit.catalogue.search import open_catalogue

    catalogue = open_catalogue(uri)
    _, spaces = catalogue.sample(1)[0]
    rng = np.random.default_rng(3)
    with Peak() as peak:
        for _ in range(30):
            noise = rng.standard_normal(spaces.shape, np.float32) * (0.5 / WIDTH**0.5)
            catalogue.search((spaces + noise).astype(np.float32), 0)
    return {"mib": peak.bytes / 2**20}


SIDES = ("one condition", "one, exact", "three conditions", "one, with a filter")
SIDES += ("NumPy", "FAISS flat", "FAISS HNSW")
UPKEEP = ("writing", "compaction and indexes", "size", "memory of a search")


def markdown(rows: list[dict]) -> str:
    """Make two tables by size: what the catalogue costs, and each side's times and recall."""
    of = {row["what"]: row for row in rows}
    sizes = sorted({int(what.split(":")[0].replace(",", "")) for what in of if what.endswith("p50")})
    heads = [f"{size:,}" for size in sizes]
    lines = [f"| items | {' | '.join(heads)} |", "|---|" + "---|" * len(sizes)]
    for what in UPKEEP:
        cells = [of[f"{size}: {what}"] for size in heads]
        lines.append(f"| {what}, {cells[0]['unit']} | {' | '.join(_short(cell) for cell in cells)} |")
    lines += ["", f"| search: p50 / p95 in ms, recall@10 | {' | '.join(heads)} |"]
    lines.append("|---|" + "---|" * len(sizes))
    for side in SIDES:
        cells = [
            " / ".join(_short(of[f"{size}: {side}, {part}"]) for part in ("p50", "p95")) for size in heads
        ]
        shares = [of.get(f"{size}: {side}, recall@10") for size in heads]
        cells = [f"{cell}, {float(s['value']):.2f}" if s else cell for cell, s in zip(cells, shares)]
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(row: dict) -> str:
    """Write a value with as many digits as say something."""
    value = float(row["value"])
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def keep(rows: list[Row], options) -> None:
    """Write what was measured so far, with machine and load, behind what earlier calls measured of others."""
    if options.quick:
        return
    facts = machine(options.threads)
    about = {"machine": facts["processor"], "threads": facts["threads"], "load": facts["load"]}
    new = [{**asdict(row), "met": row.met, **about} for row in with_limits(rows, CLAIMS)]
    names = {row.what for row in rows}
    kept = read_csv(RESULTS) if RESULTS.exists() else []
    write_csv(RESULTS, COLUMNS, [*(row for row in kept if row["what"] not in names), *new])


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000], help="items (default 10^4, 10^5)"
    )
    parser.add_argument("--only", choices=["indexing", "searches", "kinds"], help="measure this alone")
    parser.add_argument("--queries", type=int, default=60, help="searches of each side (default %(default)s)")
    parser.add_argument(
        "--memory", metavar="CATALOGUE", help=f"for {__name__} itself: the memory of searches in it"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables of the rows, and stop")
    options = begin(parser, argv)
    if options.markdown:
        print(markdown(read_csv(RESULTS)))
        return {}
    if options.memory:
        result = memory_of(options.memory)
        print(json.dumps(result))
        return result
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as uri:
        folder = Path(uri)
        if options.only in (None, "indexing"):
            rows += indexing(options, folder)
            keep(rows, options)
        sizes = [2000] if options.quick else options.sizes
        base = None if options.only == "indexing" else base_vectors(options)
        for count in [] if base is None else sizes:
            rows += (kinds if options.only == "kinds" else searches)(
                options, folder / str(count), count, base
            )
            keep(rows, options)
    return report("catalogue", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
