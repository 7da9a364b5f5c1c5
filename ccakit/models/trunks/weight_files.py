"""The file that a trunk starts from: one that is given, or data/weights/TRUNK.safetensors if it is there."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from ccakit.disk import file_digest, project_folder
from ccakit.models.trunks.frozen import FrozenStem

log = logging.getLogger("ccakit")
FOLDER = Path("data/weights")
HUB = Path("hub")  # --weights hub


def find_weights(trunk: str, pretrained: bool, weights: str | Path | None) -> Path | None:
    """Find the file of a trunk's weights; None where they come from the usual source, or are random.

    weights: a file; "hub", for the usual source (timm's hub, `lite`'s package); or None, for the file
    data/weights/TRUNK.safetensors of the working folder, or of the project's, if there is one.
    """
    if weights is not None:
        return None if Path(weights) == HUB else Path(weights)
    if not pretrained:
        return None
    places = [folder / FOLDER / f"{trunk}.safetensors" for folder in (Path(), project_folder())]
    found = next((file for file in places if file.is_file()), None)
    if found is not None:
        log.info("the trunk %s starts from %s (--weights hub: not from it)", trunk, found)
    return found


def in_weights_folder(file: str | Path) -> bool:
    """Say whether a file is one that `find_weights` takes where none is given."""
    return Path(file).parts[-3:-1] == FOLDER.parts


def weights_record(model: nn.Module) -> list[dict[str, str]]:
    """Describe the files that a model's trunks started from: path, checksum, and what their headers say."""
    trunks = [module for module in model.modules() if isinstance(module, FrozenStem)]
    files = {str(trunk.pretrained_cfg["file"]) for trunk in trunks if trunk.pretrained_cfg.get("file")}
    return [{"file": f, "sha256": file_digest(Path(f)), **_header(f)} for f in sorted(files)]


def _header(file: str) -> dict[str, str]:
    """Read what the header of a file of ours says of its source, licence and notes (see `save_tensors`)."""
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {})["about"])
        return {key: str(about[key]) for key in ("source", "licence", "notes") if key in about}
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):  # a .pth, or a header of others
        return {}
