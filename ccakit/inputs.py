"""What a model is fed, by image index: pictures, or the kept output of its frozen part."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccakit.data.errors import DataError
from ccakit.data.images import ImageTransform, read_image
from ccakit.data.layout import Split

log = logging.getLogger("ccakit")


class ImageInputs:
    """Images of a split, read and transformed: `load(indices)` -> (n, 3, height, width) float32."""

    cached = False

    def __init__(self, split: Split, transform: ImageTransform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.filenames)

    def _one(self, index: int) -> Tensor:
        try:
            return self.transform(read_image(self.split.path(index)))
        except DataError as error:
            raise self.error(index, f"lists {self.split.filenames[index]}, which {error.problem}") from None

    def error(self, index: int, problem: str) -> DataError:
        """What is wrong with an image, by the list's line that names it."""
        remedy = "Put a whole image there; lines must stay, as labels count them."
        return DataError(Path(self.split.root) / f"filenames_{self.split.name}.txt", problem, remedy, line=index + 1)

    def load(self, indices: np.ndarray) -> Tensor:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # OpenCV decodes outside the GIL
            return torch.stack(list(pool.map(self._one, np.asarray(indices).tolist())))


class FeatureInputs:
    """The frozen stem's output for every image of a split, float16 on disk: `load(indices)` -> float32."""

    cached = True

    def __init__(self, file: Path) -> None:
        self.features = np.load(file, mmap_mode="r", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.features)

    def load(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(self.features[indices].astype(np.float32))


def keep_features(
    model, inputs: ImageInputs, folder: Path, *, batch_size: int = 16, progress: bool = True
) -> FeatureInputs:
    """The stem's output for all images of `inputs`, from `folder` if it is there, else computed and kept.

    The file's name carries a digest of the frozen weights, the transform and the images (names, sizes, times),
    so that a change of any of them computes anew. A file that is not whole is computed anew.
    """
    split = inputs.split
    file = Path(folder) / f"{split.name}-{_key(model, inputs)}.npy"
    if not _whole(file, len(inputs)):
        file.parent.mkdir(parents=True, exist_ok=True)
        _compute(model, inputs, file, batch_size, progress)
    return FeatureInputs(file)


def inputs_for(model, split: Split, transform: ImageTransform, *, cache: bool, progress: bool = True):
    """What `model` is fed of a split: kept features (in the data set's `.features`) where `cache` is set and the
    model has a frozen part, else images; images, too, with a warning, where the folder cannot be written.
    """
    images = ImageInputs(split, transform)
    if not (cache and model.trunk.freezes):
        return images
    folder = Path(split.root) / ".features"
    try:
        return keep_features(model, images, folder, progress=progress)
    except OSError as error:
        log.warning("%s: features cannot be kept (%s); they are computed anew each time", folder, error)
        return images


@torch.inference_mode()
def _compute(model, inputs: ImageInputs, file: Path, batch_size: int, progress: bool) -> None:
    device, total, split_name = next(model.parameters()).device, len(inputs), inputs.split.name
    partial, store = file.with_suffix(f".{os.getpid()}.partial"), None
    stem = model.trunk.folded().stem
    try:
        hide = None if progress else True  # None: shown on a terminal, not in a log
        bar = tqdm(total=total, desc=f"features of {split_name}", unit="img", disable=hide, leave=False)
        for start in range(0, total, batch_size):
            indices = np.arange(start, min(start + batch_size, total))
            features = stem(inputs.load(indices).to(device)).cpu().numpy().astype(np.float16)
            if store is None:
                shape = (total, *features.shape[1:])
                store = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            store[indices] = features
            bar.update(len(indices))
        bar.close()
        store.flush()
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _whole(file: Path, count: int) -> bool:
    try:
        return len(np.load(file, mmap_mode="r", allow_pickle=False)) == count
    except (OSError, ValueError, EOFError):
        return False


def _key(model, inputs: ImageInputs) -> str:
    digest = hashlib.sha256(model.trunk.stem_key().encode())
    digest.update(json.dumps(inputs.transform.to_dict(), sort_keys=True).encode())
    for index, name in enumerate(inputs.split.filenames):
        try:
            stat = inputs.split.path(index).stat()
        except FileNotFoundError:
            raise inputs.error(index, f"lists {name}, which is missing") from None
        digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
