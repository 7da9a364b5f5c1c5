"""What a model is fed, by image index: pictures, or the kept output of its frozen part.

An image that cannot be read is an error that names its line. Where a share of the split's images may be
unreadable (`max_unreadable`), they are found once, before the first of them is used: `inputs.unreadable` says
which they are and why, and training and evaluation leave them out (`Split.without`). `load` gives NaN for
them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ccakit import processes
from ccakit.data.images import MAX_BYTES, read_image
from ccakit.data.split import Split
from ccakit.data.transform import ImageTransform
from ccakit.disk import atomic_write, content_digest, write_json
from ccakit.errors import DataError

log = logging.getLogger("ccakit")


class Inputs:
    """Hold what both kinds of inputs share: how many images there are, and which of them cannot be read.

    max_unreadable: the share of the split's images that may be unreadable, 0 to 1; 0: the first one is an
    error. unreadable: why an image cannot be read, by its index. complete: whether all unreadable images have
    been found; then one more is an error.
    """

    cached = False

    def __init__(self, split: Split, max_unreadable: float = 0.0) -> None:
        self.split, self.max_unreadable = split, max_unreadable
        self.unreadable: dict[int, str] = {}
        self.complete = False

    def __len__(self) -> int:
        return len(self.split.filenames)

    def error(self, index: int, problem: str) -> DataError:
        """The error that names the image's line in the list of files."""
        file = Path(self.split.root) / f"filenames_{self.split.name}.txt"
        remedy = "Put a whole image there; lines must stay, as labels count them."
        return DataError(file, problem, remedy, line=index + 1)

    def note(self, index: int, reason: str) -> None:
        """Add an image to the unreadable ones; DataError where no more are allowed."""
        if self.complete or not self.max_unreadable:
            raise self.error(index, f"lists {self.split.filenames[index]}, which {reason}")
        self.unreadable[index] = reason

    def check(self) -> None:
        """Raise DataError where there are too many; it names the first and the others' lines."""
        if len(self.unreadable) <= self.max_unreadable * len(self):
            return
        (first, reason), *others = sorted(self.unreadable.items())
        lines = ", ".join(f"{index + 1} ({why})" for index, why in others[:20])
        also = f"; so are lines {lines}{', ...' if others[20:] else ''}" if others else ""
        share = f"{len(self.unreadable)} of {len(self)} images cannot be read, more than a share of "
        problem = f"lists {self.split.filenames[first]}, which {reason}{also}. {share}{self.max_unreadable:g}"
        raise self.error(first, problem)

    def report(self) -> list[dict]:
        """List the unreadable images in order: index, file, its line in the list, and why."""
        names = self.split.filenames
        return [
            {"image": index, "file": names[index], "line": index + 1, "reason": reason}
            for index, reason in sorted(self.unreadable.items())
        ]


class ImageInputs(Inputs):
    """Read and transform the images of a split: `load(indices)` -> (n, 3, height, width) float32."""

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
        """Load images. threads: how many are read at the same time; by default one a core, at most 4."""
        threads, indices = threads or min(4, os.cpu_count() or 1), np.asarray(indices).tolist()
        if threads == 1:
            return torch.stack([self._one(index) for index in indices])
        return torch.stack(list(core_threads(threads).map(self._one, indices)))


class FeatureInputs(Inputs):
    """Open the frozen stem's output for every image, float16 on disk: `load(indices)` -> float32."""

    cached = True

    def __init__(self, file: Path, images: ImageInputs) -> None:
        super().__init__(images.split, images.max_unreadable)
        self.unreadable, self.complete = images.unreadable, True
        self.features = np.load(file, mmap_mode="r", allow_pickle=False)

    def load(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[indices]).float()  # torch converts ten times as fast as NumPy


def inputs_for(
    model,
    split: Split,
    transform: ImageTransform,
    *,
    cache: bool,
    progress: bool = True,
    max_unreadable: float = 0.0,
) -> ImageInputs | FeatureInputs:
    """Choose what `model` is fed of a split; of several processes, all have to call this.

    Kept features (in the data set's `.features`) where `cache` is set and the model has a frozen part, else
    images; images, too, with a warning, where the folder cannot be written. max_unreadable: the share of the
    images that may be unreadable, see `Inputs`; DataError where there are more.
    """
    processes.start()
    images, features = ImageInputs(split, transform, max_unreadable), None
    folder = Path(split.root) / ".features"
    if max_unreadable:
        find_unreadable(images, folder, progress=progress)
    if cache and model.keeps_features:
        with processes.local_main_first():  # it computes the features, which the others then open
            try:
                features = keep_features(model, images, folder, progress=progress)
            except OSError as error:
                log.warning("%s: features cannot be kept (%s); they are computed each time", folder, error)
    return images if processes.all_max([features is None])[0] else features


def find_unreadable(inputs: ImageInputs, folder: Path, *, progress: bool = True) -> None:
    """Find all images that cannot be read, by decoding each once; DataError where there are too many.

    The result is kept in `folder`, under a digest of the transform and the images (names and content), so
    that the same images are decoded once. Each process decodes its part of them.
    """
    file = processes.run_on_main(lambda: folder / f"{inputs.split.name}-{_key(inputs)}.unreadable.json")
    found = processes.run_on_main(lambda: _read_reasons(file, len(inputs)))
    if found is None:
        with processes.raise_in_all():
            _decode_all(inputs, processes.shard(np.arange(len(inputs))), progress and processes.is_main())
        found = processes.gather_dicts(inputs.unreadable)
        processes.run_on_main(lambda: _keep_reasons(file, found))
    inputs.unreadable, inputs.complete = found, True
    inputs.check()


def _read_reasons(file: Path, count: int) -> dict[int, str] | None:
    """Read which of so many images are unreadable, and why; None where the file does not say it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        reasons = {int(index): str(reason) for index, reason in values.items()}
    except (OSError, ValueError, AttributeError):
        return None
    return reasons if all(0 <= index < count for index in reasons) else None


def _keep_reasons(file: Path, reasons: dict[int, str]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {str(index): reason for index, reason in sorted(reasons.items())})
    except OSError as error:
        log.warning("%s cannot be written (%s); another run will look at all images again", file, error)


def _decode_all(inputs: ImageInputs, indices: np.ndarray, progress: bool) -> None:
    load = partial(inputs.load, threads=1)
    with _bar(f"images of {inputs.split.name}", len(indices), progress) as bar:
        for pictures in core_threads().map(load, _batches(indices, 16)):
            bar.update(len(pictures))


def keep_features(
    model, inputs: ImageInputs, folder: Path, *, batch_size: int = 16, progress: bool = True
) -> FeatureInputs:
    """Open the stem's output for all images, kept in `folder`; compute it where it is not there.

    The file's name carries a digest of the frozen weights, the transform and the images (names, content, and
    which are known to be unreadable), so that a change of any of them computes it again, as does a file that
    is not whole. DataError for another image that cannot be read.
    """
    return keep_depths([model], inputs, folder, batch_size=batch_size, progress=progress)[0]


def keep_depths(
    models: list, inputs: ImageInputs, folder: Path, *, batch_size: int = 16, progress: bool = True
) -> list[FeatureInputs]:
    """Do what `keep_features` does for several models, whose stems are beginnings of the longest one's.

    What is not there yet is computed in one pass of the longest stem of those. ValueError for another stem.
    """
    files = [features_file(model, inputs, folder) for model in models]
    missing = {file: m.trunk for file, m in zip(files, models) if not _is_whole(file, len(inputs))}
    if missing:
        deepest = max(missing.values(), key=lambda trunk: trunk.frozen)
        if any(deepest.stem_key(trunk.frozen) != trunk.stem_key() for trunk in missing.values()):
            raise ValueError("the models' frozen parts are not beginnings of the longest one")
        Path(folder).mkdir(parents=True, exist_ok=True)
        wanted = {trunk.frozen: file for file, trunk in missing.items()}
        _compute(deepest, inputs, wanted, batch_size, progress)
    return [FeatureInputs(file, inputs) for file in files]


def features_file(model, inputs: ImageInputs, folder: Path) -> Path:
    """Name the file that keeps a model's features of all images."""
    return Path(folder) / f"{inputs.split.name}-{_key(inputs, model.trunk.stem_key())}.npy"


def _compute(trunk, inputs: ImageInputs, files: dict[int, Path], batch_size: int, progress: bool) -> None:
    """Write the features, a file for each number of stages: a batch a thread, which reads and computes on
    one core, where all together would wait for each other at every layer. So the features do not depend on
    the number of cores either."""
    device, folded, depths = next(trunk.parameters()).device, trunk.folded(), sorted(files)
    processes.keep_freed_memory()

    def features_of(indices: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = folded.stem_at(inputs.load(indices, threads=1).to(device), depths)
        return [output.cpu().numpy().astype(np.float16) for output in outputs]

    batches = _batches(np.arange(len(inputs)), batch_size)
    with _bar(f"features of {inputs.split.name}", len(inputs), progress) as bar, ExitStack() as stack:
        partial = [stack.enter_context(atomic_write(files[depth], durable=True)) for depth in depths]
        # no memory maps: a full disk would kill the process
        stores = [stack.enter_context(open(path, "wb")) for path in partial]
        for indices, outputs in zip(batches, core_threads().map(features_of, batches)):
            for store, features in zip(stores, outputs):
                if indices[0] == 0:
                    header = np.lib.format.header_data_from_array_1_0(features)
                    header["shape"] = (len(inputs), *features.shape[1:])
                    np.lib.format.write_array_header_1_0(store, header)
                store.write(np.ascontiguousarray(features))
            bar.update(len(indices))


def _batches(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(indices, range(size, len(indices), size))


def core_threads(count: int = 0) -> ThreadPoolExecutor:
    """Give so many threads, which compute on one core each; by default one a core, at most 16."""
    return _threads_of(os.getpid(), count or min(torch.get_num_threads(), 16))  # a batch takes some 100 MiB


@cache
def _threads_of(process: int, count: int) -> ThreadPoolExecutor:
    """Give the threads of a process, which stay: a fork has none of its parent's.

    Loader processes are forks. A thread that has decoded an image takes a lock of OpenCV when it ends; a fork
    that is made just then would wait for that lock for ever.
    """
    usual, all_started = torch.get_num_threads(), Barrier(count + 1)
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    for _ in range(count):
        pool.submit(all_started.wait)
    all_started.wait()
    torch.set_num_threads(usual)  # what a thread sets for itself, threads that begin later begin with
    return pool


def _bar(name: str, total: int, progress: bool) -> tqdm:
    """Show a bar on a terminal, and none in a log."""
    return tqdm(desc=name, total=total, unit="img", disable=None if progress else True, leave=False)


def _is_whole(file: Path, count: int) -> bool:
    """Whether the file holds the features of so many images, of one type and shape."""
    try:
        features = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # noqa: BLE001 - of many types, by what numpy takes the file for
        return False
    is_array = isinstance(features, np.ndarray)  # of a zip, numpy gives something else
    return is_array and features.dtype == np.float16 and features.ndim > 1 and len(features) == count


def _key(inputs: ImageInputs, stem: str = "") -> str:
    """Digest what the inputs depend on: the stem, the transform, each file's name and content.

    Also which images are known to be unreadable: features of fewer images are not features of all.
    """
    digest = hashlib.sha256(f"{stem}{sorted(inputs.unreadable)}".encode())
    digest.update(json.dumps(inputs.transform.to_dict(), sort_keys=True).encode())
    names, paths = inputs.split.filenames, [inputs.split.path(i) for i in range(len(inputs))]
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:  # hashes outside the GIL
        for index, found in enumerate(pool.map(_content, paths)):
            if isinstance(found, OSError):
                if index not in inputs.unreadable:
                    missing = isinstance(found, FileNotFoundError)
                    inputs.note(index, "is missing" if missing else f"cannot be read ({found})")
                found = found.errno
            digest.update(f"{names[index]} {found}\n".encode())
    inputs.check()
    return digest.hexdigest()[:16]


def _content(path: Path) -> str | OSError:
    """Digest a file's content, as a picture may be exchanged for another of the same size and time."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:  # `read_image` refuses these
            return f"{status.st_mode} {status.st_size}"
        return content_digest(path.read_bytes())
    except OSError as error:
        return error
