"""Every image of a split under every condition, and what ranking and heatmaps say of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ccakit import processes
from ccakit.data.split import Split
from ccakit.disk import save_tensors, write_json, writing


def _tokens(model, inputs, indices, batch_size: int, progress: str | None):
    """Batches of (positions in `indices`, tokens), the model in eval mode; of several processes, each has its own.

    Batches are the single process's, whatever the number of processes, and so are their tokens.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    starts = processes.shard(np.arange(0, len(indices), batch_size)).tolist()
    shown = progress and processes.is_main()
    for start in tqdm(starts, desc=progress, disable=None if shown else True, leave=False):
        part = indices[start : start + batch_size]
        batch = inputs.load(part).to(device)
        tokens = model.encode_features(batch) if inputs.cached else model.encode(batch)
        yield slice(start, start + len(part)), tokens
    model.train(training)


def _joined(out: np.ndarray, inputs) -> np.ndarray:
    """The rows that the processes have filled, in all of them; they tell each other of unreadable images, too."""
    if processes.world_size() > 1 and hasattr(inputs, "unreadable"):
        inputs.unreadable.update(processes.gather_dicts(inputs.unreadable))
    return processes.sum_arrays(out)


def _skipped(images: np.ndarray, inputs) -> np.ndarray:
    """Which of the images could not be read: (n,) bool; none, where the inputs are not of files."""
    return np.isin(images, list(getattr(inputs, "unreadable", ())))


@torch.inference_mode()
def embed_images(
    model, inputs, indices=None, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """All spaces of the images `indices` (all by default): (n, K, E) float32; NaN where `inputs` may skip images
    that cannot be read. In several processes, which all have to call this, each embeds a part; all get the whole."""
    processes.start()
    indices = np.arange(len(inputs)) if indices is None else np.asarray(indices)
    out = np.zeros((len(indices), model.conditions, model.embed_dim), np.float32)
    with processes.raise_in_all():
        for where, tokens in _tokens(model, inputs, indices, batch_size, progress):
            out[where] = model.spaces(tokens).float().cpu().numpy()
    out = _joined(out, inputs)
    out[_skipped(indices, inputs)] = np.nan
    return out


def save_embeddings(out: Path, embeddings: np.ndarray, facts: dict) -> None:
    """`out`, safetensors, and `facts` in a JSON file beside it; DataError where they cannot be written."""
    with writing(out, "then give the command again"):
        out.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({"embeddings": torch.from_numpy(embeddings)}, out)
        write_json(out.with_suffix(".json"), facts)


@torch.inference_mode()
def embed_rows(
    model, inputs, rows: np.ndarray, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """The embedding of each row (image, condition, ...): (R, E) float32; each image is encoded once. NaN as there."""
    processes.start()
    images, place = np.unique(rows[:, 0], return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(images) + 1))
    out = np.zeros((len(rows), model.embed_dim), np.float32)
    with processes.raise_in_all():
        for where, tokens in _tokens(model, inputs, images, batch_size, progress):
            spaces = model.spaces(tokens).float().cpu().numpy()
            of = order[starts[where.start] : starts[where.stop]]
            out[of] = spaces[place[of] - where.start, rows[of, 1]]
    out = _joined(out, inputs)
    out[_skipped(rows[:, 0], inputs)] = np.nan
    return out


@torch.inference_mode()
def attention_maps(
    model, inputs, indices, *, batch_size: int = 64, progress: str | None = None
) -> np.ndarray:
    """Head-mean attention of images under every condition: (n, K, h, w) float32."""
    processes.start()
    indices = np.asarray(indices)
    out = np.zeros((len(indices), model.conditions, *model.trunk.grid_size), np.float32)
    with processes.raise_in_all():
        for where, tokens in _tokens(model, inputs, indices, batch_size, progress):
            for condition in range(model.conditions):
                maps = model.attention(tokens, model.all_of(condition, tokens))
                out[where, condition] = maps.mean(dim=1).float().cpu().numpy()
    out = _joined(out, inputs)
    out[_skipped(indices, inputs)] = np.nan
    return out


def readable(split: Split, inputs) -> Split:
    """The split without the queries, candidates, labels and regions of images that `inputs` could not read.

    DataError where no query or no candidate is left.
    """
    if not getattr(inputs, "unreadable", ()):
        return split
    names = ("labels", "queries", "candidates", "regions")
    rows = {name: getattr(split, name) for name in names if getattr(split, name) is not None}
    rows = {name: of[~_skipped(of[:, 0], inputs)] for name, of in rows.items()}
    for name in ("queries", "candidates"):
        if name in rows and not len(rows[name]):
            problem = f"{len(inputs.unreadable)} images cannot be read, and none of the {name} is left"
            raise inputs.error(min(inputs.unreadable), problem)
    return replace(split, **rows)


def rank(model, inputs, split: Split, *, batch_size: int = 64, progress: str | None = None):
    """Rank the split's candidates for each of its queries, under each condition: a RetrievalResult.

    Queries and candidates whose images cannot be read are left out, where `inputs` may skip them.
    """
    from ccakit.metrics import retrieval_aps

    rows = np.concatenate([split.queries, split.candidates])
    embeddings = embed_rows(model, inputs, rows, batch_size=batch_size, progress=progress)
    embeddings = embeddings[~_skipped(rows[:, 0], inputs)]
    split = readable(split, inputs)
    queries, candidates = np.split(embeddings, [len(split.queries)])
    return retrieval_aps(split.queries, queries, split.candidates, candidates, split.attributes)
