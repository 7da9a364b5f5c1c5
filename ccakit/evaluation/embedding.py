"""Every image of a split under every condition: embeddings, heatmaps, and the ranking of the split's queries.

Where `inputs` may skip images that cannot be read, their rows are NaN. In several processes, all of them have
to call these functions; each computes a part, and all get the full result.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ccakit import processes
from ccakit.data.split import Split
from ccakit.disk import save_tensors, write_json, writing
from ccakit.metrics import RetrievalResult, retrieval_aps


@torch.inference_mode()
def _for_all(
    model, inputs, images: np.ndarray, rows: np.ndarray, fill: Callable, batch_size: int, progress: str | None
) -> np.ndarray:
    """Call `fill(positions in images, their tokens)` for every batch, to fill its part of `rows`; return all.

    The model is in eval mode. Each process does its batches, whose tokens do not depend on how many processes
    there are.
    """
    processes.start()
    device, training = next(model.parameters()).device, model.training
    encode = model.encode_features if inputs.cached else model.encode
    starts = processes.shard(np.arange(0, len(images), batch_size)).tolist()
    hidden = None if progress and processes.is_main() else True  # None: shown on a terminal, not in a log
    model.eval()
    with processes.raise_in_all():
        for start in tqdm(starts, desc=progress, disable=hidden, leave=False):
            batch = images[start : start + batch_size]
            fill(slice(start, start + len(batch)), encode(inputs.load(batch).to(device)))
    model.train(training)
    return processes.all_sum(torch.from_numpy(rows)).numpy()


def is_unreadable(images: np.ndarray, inputs) -> np.ndarray:
    """Tell which of the images (n,) could not be read: (n,) bool."""
    return np.isin(images, list(inputs.unreadable))


def embed_images(
    model, inputs, indices=None, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """Embed the images `indices` (all by default) under all conditions: (n, K, E) float32.

    progress: what the progress bar says; None: there is no bar.
    """
    images = np.arange(len(inputs)) if indices is None else np.asarray(indices)
    embeddings = np.zeros((len(images), model.conditions, model.embed_dim), np.float32)

    def fill_batch(batch: slice, tokens: Tensor) -> None:
        embeddings[batch] = model.spaces(tokens).float().cpu().numpy()

    embeddings = _for_all(model, inputs, images, embeddings, fill_batch, batch_size, progress)
    embeddings[is_unreadable(images, inputs)] = np.nan
    return embeddings


def embed_rows(
    model, inputs, rows: np.ndarray, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """Embed each row (image, condition, ...) under its condition; images are encoded once. (R, E) float32."""
    images, image_of_row = np.unique(rows[:, 0], return_inverse=True)
    order = np.argsort(image_of_row, kind="stable")
    starts = np.searchsorted(image_of_row[order], np.arange(len(images) + 1))
    embeddings = np.zeros((len(rows), model.embed_dim), np.float32)

    def fill_batch(batch: slice, tokens: Tensor) -> None:
        spaces = model.spaces(tokens).float().cpu().numpy()  # (b, K, E)
        chosen = order[starts[batch.start] : starts[batch.stop]]
        embeddings[chosen] = spaces[image_of_row[chosen] - batch.start, rows[chosen, 1]]

    embeddings = _for_all(model, inputs, images, embeddings, fill_batch, batch_size, progress)
    embeddings[is_unreadable(rows[:, 0], inputs)] = np.nan
    return embeddings


def attention_maps(
    model, inputs, indices, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """Compute the heads' mean attention of images under every condition: (n, K, h, w) float32.

    NotImplementedError if the system does not attend.
    """
    images = np.asarray(indices)
    maps = np.zeros((len(images), model.conditions, *model.trunk.grid_size), np.float32)

    def fill_batch(batch: slice, tokens: Tensor) -> None:
        attn = model.attention_spaces(tokens)  # (b, K, H, h, w)
        maps[batch] = attn.mean(dim=2).float().cpu().numpy()

    maps = _for_all(model, inputs, images, maps, fill_batch, batch_size, progress)
    maps[is_unreadable(images, inputs)] = np.nan
    return maps


def facts_file(out: Path) -> Path:
    """Name the JSON file beside embeddings: `.json` for `.safetensors`, or added to any other name.

    >>> [facts_file(Path(name)).name for name in ("test.safetensors", "v1.0", "e.json")]
    ['test.json', 'v1.0.json', 'e.json.json']
    """
    return out.parent / f"{out.name.removesuffix('.safetensors')}.json"


def save_embeddings(out: Path, embeddings: np.ndarray, facts: dict) -> None:
    """Write embeddings to `out` (safetensors), and `facts` to a JSON file beside it, see `facts_file`.

    DataError where they cannot be written.
    """
    with writing(out, "then give the command again"):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({"embeddings": torch.from_numpy(embeddings)}, out)
        write_json(facts_file(out), facts)


def readable(inputs) -> Split:
    """Take the split of `inputs` without the labels, queries, candidates and regions of unreadable images.

    DataError if no label, no query or no candidate is left.
    """
    split = inputs.split
    if not inputs.unreadable:
        return split
    kept = split.without(inputs.unreadable)
    for name in ("labels", "queries", "candidates"):
        rows = getattr(kept, name)
        if rows is not None and not len(rows):
            problem = f"{len(inputs.unreadable)} images cannot be read, and none of the {name} is left"
            raise inputs.error(min(inputs.unreadable), problem)
    return kept


class Sides(NamedTuple):
    """A split's queries and candidates: rows (image, condition, label) and their embeddings, (R, E)."""

    queries: np.ndarray
    query_embeddings: np.ndarray
    candidates: np.ndarray
    candidate_embeddings: np.ndarray


def embed_sides(model, inputs, *, batch_size: int = 64, progress: str | None = None) -> Sides:
    """Embed the split's queries and candidates, each under its condition; unreadable images are left out."""
    queries, candidates = readable(inputs).sides()
    rows = np.concatenate([queries, candidates])
    embeddings = embed_rows(model, inputs, rows, batch_size=batch_size, progress=progress)
    return Sides(queries, embeddings[: len(queries)], candidates, embeddings[len(queries) :])


def rank(model, inputs, *, batch_size: int = 64, progress: str | None = None) -> RetrievalResult:
    """Rank the split's candidates for each of its queries, under each condition.

    Queries and candidates whose images are known to be unreadable are left out, and a query's own image is
    left out of its ranking.
    """
    sides = embed_sides(model, inputs, batch_size=batch_size, progress=progress)
    return retrieval_aps(*sides, inputs.split.attributes)
