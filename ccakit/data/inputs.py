"""What a model is fed, by image index: pictures, or the kept output of its frozen part.

An image that cannot be read is an error that names its line, unless a share of the split's images may be unreadable
(`max_unreadable`). Then its row is NaN, and `inputs.unreadable` says why: training replaces it by another draw
(`ccakit.training.batches.Steps`), evaluation leaves it out (`ccakit.evaluation.embedding.rank`).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ccakit.data.images import read_image
from ccakit.data.split import Split
from ccakit.data.transform import ImageTransform
from ccakit.disk import atomic_write, write_json
from ccakit.errors import DataError
from ccakit.processes import keep_freed_memory

log = logging.getLogger("ccakit")


class UnreadableImage(DataError):
    """An image that cannot be read; `line` is that of the list that names it, and its index is the line less 1."""


class Inputs:
    """What both kinds of inputs share: how many images there are, and which of them cannot be read.

    max_unreadable: the share of the split's images that may be unreadable, 0 to 1; 0: the first one is an error.
    unreadable: why, by index, of those found so far. A loader's worker process has its own.
    """

    cached = False

    def __init__(self, split: Split, max_unreadable: float = 0.0) -> None:
        self.split, self.max_unreadable = split, max_unreadable
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.split.filenames)

    def error(self, index: int, problem: str) -> UnreadableImage:
        """What is wrong with an image, by the list's line that names it."""
        remedy = "Put a whole image there; lines must stay, as labels count them."
        return UnreadableImage(self._list, problem, remedy, line=index + 1)

    @property
    def _list(self) -> Path:
        return Path(self.split.root) / f"filenames_{self.split.name}.txt"

    def note(self, index: int, reason: str) -> None:
        """Keep in mind that an image cannot be read; UnreadableImage where none may be."""
        if not self.max_unreadable:
            raise self.error(index, f"lists {self.split.filenames[index]}, which {reason}")
        self.unreadable[index] = reason

    def too_many(self) -> bool:
        """Whether more images are unreadable than may be."""
        return len(self.unreadable) > self.max_unreadable * len(self)

    def check(self) -> None:
        """UnreadableImage, with the first of them and the lines of the others, where there are too many."""
        if not self.too_many():
            return
        (first, reason), *others = sorted(self.unreadable.items())
        told = ", ".join(f"{index + 1} ({why})" for index, why in others[:20])
        told = f"; so are lines {told}{', ...' if others[20:] else ''}" if told else ""
        share = f"{len(self.unreadable)} of {len(self)} images cannot be read, more than a share of "
        problem = f"lists {self.split.filenames[first]}, which {reason}{told}. {share}{self.max_unreadable:g}"
        raise self.error(first, problem)

    def report(self) -> list[dict]:
        """The unreadable images, in order: index, file, its line in the list, and why."""
        names = self.split.filenames
        return [
            {"image": index, "file": names[index], "line": index + 1, "reason": reason}
            for index, reason in sorted(self.unreadable.items())
        ]


class ImageInputs(Inputs):
    """Images of a split, read and transformed: `load(indices)` -> (n, 3, height, width) float32."""

    def __init__(self, split: Split, transform: ImageTransform, max_unreadable: float = 0.0) -> None:
        super().__init__(split, max_unreadable)
        self.transform = transform

    def _one(self, index: int) -> Tensor:
        if index not in self.unreadable:
            try:
                return self.transform(read_image(self.split.path(index), at_least=self.transform.at_least))
            except ValueError as error:  # DataError is one; the transform's own is the other
                self.note(index, getattr(error, "problem", str(error)))
        return torch.full((3, *self.transform.size), torch.nan)

    def load(self, indices: np.ndarray, threads: int | None = None) -> Tensor:
        """threads: images read at the same time; by default one a core, at most 4."""
        threads, indices = threads or min(4, os.cpu_count() or 1), np.asarray(indices).tolist()
        if threads == 1:
            return torch.stack([self._one(index) for index in indices])
        with ThreadPoolExecutor(threads) as pool:  # OpenCV decodes outside the GIL
            return torch.stack(list(pool.map(self._one, indices)))


class FeatureInputs(Inputs):
    """The frozen stem's output for every image of `images`, float16 on disk: `load(indices)` -> float32.

    A file beside it, where there is one, names the images that could not be read.
    """

    cached = True

    def __init__(self, file: Path, images: ImageInputs) -> None:
        super().__init__(images.split, images.max_unreadable)
        self.features = np.load(file, mmap_mode="r", allow_pickle=False)
        for index, reason in _read_reasons(file).items():
            self.note(index, reason)
        self.check()

    def load(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[indices]).float()  # torch converts ten times as fast as NumPy


def keep_features(
    model, inputs: ImageInputs, folder: Path, *, batch_size: int = 16, progress: bool = True
) -> FeatureInputs:
    """The stem's output for all images of `inputs`, from `folder` if it is there, else computed and kept.

    The file's name carries a digest of the frozen weights, the transform and the images (names, sizes, times),
    so that a change of any of them computes anew. A file that is not whole is computed anew. UnreadableImage for
    images that cannot be read, if there are more than `inputs` may have.
    """
    split = inputs.split
    file = Path(folder) / f"{split.name}-{_key(model, inputs)}.npy"
    if not _whole(file, len(inputs)):
        file.parent.mkdir(parents=True, exist_ok=True)
        _compute(model, inputs, file, batch_size, progress)
    return FeatureInputs(file, inputs)


def inputs_for(
    model,
    split: Split,
    transform: ImageTransform,
    *,
    cache: bool,
    progress: bool = True,
    max_unreadable: float = 0.0,
) -> ImageInputs | FeatureInputs:
    """What `model` is fed of a split: kept features (in the data set's `.features`) where `cache` is set and the
    model has a frozen part, else images; images, too, with a warning, where the folder cannot be written.
    max_unreadable: the share of its images that may be unreadable, see `Inputs`.
    """
    images = ImageInputs(split, transform, max_unreadable)
    if not (cache and model.keeps_features):
        return images
    folder = Path(split.root) / ".features"
    try:
        return keep_features(model, images, folder, progress=progress)
    except OSError as error:
        log.warning("%s: features cannot be kept (%s); they are computed anew each time", folder, error)
        return images


def _compute(model, inputs: ImageInputs, file: Path, batch_size: int, progress: bool) -> None:
    """Write the features, a batch a thread: each thread reads and computes on one core, where all together would wait
    for each other at every layer. So the features do not depend on the number of cores either."""
    device, total, threads = next(model.parameters()).device, len(inputs), torch.get_num_threads()
    at_once = min(threads, 16)  # a batch takes some 100 MiB
    stem = model.trunk.folded().stem
    keep_freed_memory()

    def features_of(indices: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return stem(inputs.load(indices, threads=1).to(device)).cpu().numpy().astype(np.float16)

    batches = np.split(np.arange(total), range(batch_size, total, batch_size))
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
    try:
        hide = None if progress else True  # None: shown on a terminal, not in a log
        bar = tqdm(
            total=total, desc=f"features of {inputs.split.name}", unit="img", disable=hide, leave=False
        )
        with (
            atomic_write(file, durable=True) as partial,
            open(partial, "wb") as store,
        ):  # no memory map: a full disk would kill the process
            for indices, features in zip(batches, pool.map(features_of, batches)):
                inputs.check()
                features[np.isin(indices, list(inputs.unreadable))] = np.nan
                if not indices[0]:
                    store.write(_header((total, *features.shape[1:])))
                store.write(np.ascontiguousarray(features))
                bar.update(len(indices))
            bar.close()
            _write_reasons(file, inputs.unreadable)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets for itself, threads that begin later begin with


def _header(shape: tuple[int, ...]) -> bytes:
    """What a .npy file of float16 begins with."""
    header = io.BytesIO()
    facts = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def _reasons_file(file: Path) -> Path:
    return file.with_suffix(".unreadable.json")


def _write_reasons(file: Path, unreadable: dict[int, str]) -> None:
    """Name the images that have no features, in a file beside theirs; no file where all could be read."""
    if unreadable:
        write_json(_reasons_file(file), {str(index): reason for index, reason in unreadable.items()})
    else:
        _reasons_file(file).unlink(missing_ok=True)


def _read_reasons(file: Path) -> dict[int, str]:
    if not _reasons_file(file).exists():
        return {}
    return {int(index): reason for index, reason in json.loads(_reasons_file(file).read_text()).items()}


def _whole(file: Path, count: int) -> bool:
    """Whether the file holds the features of so many images, and the file beside it, if any, names some of these."""
    try:
        named = _read_reasons(file)
        features = np.load(
            file, mmap_mode="r", allow_pickle=False
        )  # of a zip it gives something else than an array
        whole = isinstance(features, np.ndarray) and features.dtype == np.float16 and features.ndim > 1
        return whole and len(features) == count and all(0 <= index < count for index in named)
    except Exception:  # noqa: BLE001 - of many types, by what numpy takes the file for
        return False


def _key(model, inputs: ImageInputs) -> str:
    digest = hashlib.sha256(model.trunk.stem_key().encode())
    digest.update(json.dumps(inputs.transform.to_dict(), sort_keys=True).encode())
    for index, name in enumerate(inputs.split.filenames):
        try:
            stat = inputs.split.path(index).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        except OSError as error:
            inputs.note(
                index, "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            )
            digest.update(f"{name} {error.errno}\n".encode())
    inputs.check()
    return digest.hexdigest()[:16]
