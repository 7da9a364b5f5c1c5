"""Our systems beside their authors' code: the same weights and inputs, the largest difference of the outputs.

    git clone https://github.com/Maryeon/asen && git clone https://github.com/Maryeon/asenpp
    git clone https://github.com/andreasveit/conditional-similarity-networks
    python benchmarks/authors_code.py --asen asen --asenpp asenpp --csn conditional-similarity-networks

Nothing of their code is kept here. Each of their modules is fed a random feature map in the place of its CNN's output
(both sides read the CNN the same way), both sides get the same numbers as weights, and both run in float32 on CPU.
`--record FILE` writes a few of THEIR output figures, on weights and inputs that a formula makes, for the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ccakit.models.asen import ASEN
from ccakit.models.asen_pp import ASENPP, BETA, attended_boxes
from ccakit.models.asen_v2 import ASENV2
from ccakit.models.csn import CSN, MASKS

CONDITIONS, CHANNELS, SIDE = 8, 1024, 14
# our parameter: theirs
NAMES = {
    "csn": {"head.fc": "embed_fc", "mask.table": "masks.weight"},
    "asen": {
        "attend.spatial_condition": "mask_fc1", "attend.channel_condition": "mask_fc2", "attend.spatial_image": "conv1",
        "attend.spatial_score": "conv2", "attend.channel_in": "fc1", "attend.channel_out": "fc2",
        "head.fc": "feature_fc",
    },
    "asen-v2": {
        "condition": "attr_embedding", "attend.spatial_condition": "attr_transform1", "attend.spatial_image": "conv1",
        "attend.spatial_norm": "img_bn1", "attend.channel_condition": "attr_transform2", "attend.channel_in": "fc1",
        "attend.channel_out": "fc2",
    },
    "asen-pp": {
        "condition": "choices.global.attrnet.attr_embedding",
        **{f"{ours}.{part}": f"choices.{theirs}.attnnet.{name}"
           for ours, theirs in (("attend", "global"), ("local_attend", "local"))
           for part, name in (("spatial_condition", "attr_transform1"), ("spatial_image", "conv"),
                              ("channel_condition", "attr_transform2"), ("channel_in", "fc1"), ("channel_out", "fc2"))},
        "head.fc": "choices.global.attnnet.feature_fc", "local_head.fc": "choices.local.attnnet.feature_fc",
    },
}  # fmt: skip


class MapOnly(nn.Module):
    """A trunk whose feature map is given: what both sides read."""

    def __init__(self, channels: int = CHANNELS, side: int = SIDE) -> None:
        super().__init__()
        self.embed_dim, self.grid_size, self.freezes = channels, (side, side), False

    def forward(self, x: Tensor) -> Tensor:
        return x


def made(shape: tuple[int, ...], key: float, scale: float = 1.0) -> Tensor:
    """Numbers from a formula, the same everywhere and without order: (-scale, scale), by the index and a key."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(1 + 1000 * key)
    hashed = (index * np.uint64(2654435761) % np.uint64(2**32)) * np.uint64(40503) % np.uint64(65521)
    return torch.from_numpy(scale * (2 * hashed.astype(np.float64) / 65521 - 1)).float().view(shape)


def fill(model: nn.Module) -> None:
    """Weights by `made`, scaled by fan-in; a BatchNorm's running variance stays positive."""
    for place, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        scale = 4 / math.sqrt(tensor[0].numel()) if tensor.dim() > 1 else 0.2
        tensor.copy_(made(tuple(tensor.shape), place, scale) + (1 if "running_var" in name else 0))


def ours(name: str, **options) -> nn.Module:
    """A system of ours over a given map, its weights by the formula."""
    build = {"csn": CSN, "asen": ASEN, "asen-v2": ASENV2}.get(name)
    if name == "asen-pp":
        model = ASENPP(MapOnly(), CONDITIONS, crop="image", local=MapOnly(256, 7))
        model.advance(1.0)
    else:
        model = build(MapOnly(), CONDITIONS, **options)
    with torch.no_grad():
        fill(model)
    return model.eval()


def hand_over(name: str, model: nn.Module, theirs: nn.Module) -> None:
    """Our weights into their model, by name."""
    state, target = model.state_dict(), theirs.state_dict()
    for mine, other in NAMES[name].items():
        for key in [key for key in state if key == mine or key.startswith(mine + ".")]:
            target[other + key[len(mine) :]].copy_(state[key])


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """A global map, a local one and conditions."""
    condition = torch.arange(6) * 5 % CONDITIONS
    return made((6, CHANNELS, SIDE, SIDE), 50, 2), made((6, 256, 7, 7), 70, 2), condition


def load(path: Path, name: str):
    """A module from a file, with `import` of its siblings."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(path.parent))
    return module


@torch.no_grad()
def their_outputs(folders: dict[str, Path]) -> dict[str, tuple[Tensor, Tensor]]:
    """name -> (ours, theirs), on the formula's weights and inputs."""
    torch.Tensor.cuda = lambda self, *_: self  # their first version moves its one-hots to a GPU
    x, local, condition = inputs()
    identity, found = nn.Identity(), {}
    asen = load(folders["asen"] / "model.py", "asen_model")
    csn = load(folders["csn"] / "csn.py", "csn_model")
    for mask in MASKS:
        model, flags = ours("csn", mask=mask), (mask != "fixed", mask == "preset")
        theirs = asen.ConditionalSimNet(identity, CHANNELS, CONDITIONS, *flags).eval()
        hand_over("csn", model, theirs)
        found[f"csn-{mask} (ASEN's)"] = model.embed(x, condition), theirs(x, condition)
        original = csn.ConditionalSimNet(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), theirs.embed_fc),
                                         CONDITIONS, CHANNELS, *flags)  # fmt: skip
        original.masks.weight.data.copy_(model.mask.table)
        masked, general, table = model.masked(x, condition[:, None])
        out, mask_norm, embedding_norm, _ = original(x, condition)
        found[f"csn-{mask} (CSN's), before the L2"] = masked[:, 0], out
        found[f"csn-{mask} (CSN's), two norms"] = (torch.stack([table.abs().sum(), general.norm()]),
                                                   torch.stack([mask_norm, embedding_norm]))  # fmt: skip
    for name, kind in (("asen", asen.ASENet), ("asen-v2", asen.ASENet_V2)):
        model, theirs = ours(name), kind(identity, CHANNELS, CONDITIONS).eval()
        hand_over(name, model, theirs)
        found[name] = model.embed(x, condition), theirs(x, condition)
        found[f"{name}, map"] = model.attention(x, condition)[:, 0], theirs.get_heatmaps(x, condition)
    found.update(asen_pp(folders["asenpp"], x, local, condition))
    return found


def asen_pp(folder: Path, x: Tensor, local: Tensor, condition: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """ASEN++: both branches, their concatenation, the two losses, and the crop's place."""
    model, theirs = ours("asen-pp"), _package(folder).ASEN(_config()).eval()
    theirs.choices["global"]["basenet"] = theirs.choices["local"]["basenet"] = nn.Identity()
    hand_over("asen-pp", model, theirs)
    whole, where = theirs(x, condition, level="global")
    part, _ = theirs(local, condition, level="local")
    normal = nn.functional.normalize
    both = torch.cat([BETA**0.5 * normal(whole), (1 - BETA) ** 0.5 * normal(part)], dim=1)
    given = model.condition(condition)[:, None]
    mine_whole = model.head(model.attend(x, given)[0])[:, 0]
    mine_part = model.local_head(model.local_attend(local, given)[0])[:, 0]
    mine = torch.cat([BETA**0.5 * mine_whole, (1 - BETA) ** 0.5 * mine_part], dim=1)
    found = {"asen-pp, both branches": (mine, both),
             "asen-pp, map": (model.attend(x, given)[1][:, 0].view(-1, SIDE, SIDE), where)}  # fmt: skip
    boxes, theirs_boxes = attended_boxes(_peaked(), 224), their_boxes(folder, _peaked())
    found["asen-pp, crop (pixels of 224)"] = boxes * 224, theirs_boxes
    return found


def _peaked() -> Tensor:
    """Maps with peaks at many places, some at the border."""
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(200, 2, generator=generator) * 16 - 1
    widths = torch.rand(200, 1, 1, generator=generator) * 6 + 0.5
    return torch.exp(-((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2) / widths)


def their_boxes(folder: Path, maps: Tensor) -> Tensor:
    """The square that ASEN++'s LocalTransform cuts out of a picture of 224 pixels."""
    transforms = load(folder / "modules/data/transforms/transforms.py", "asenpp_transforms")
    size = types.SimpleNamespace(LOCAL_SIZE=112, GLOBAL_SIZE=224, THRESHOLD=0.1, PIXEL_MEAN=[0.5] * 3,
                                 PIXEL_STD=[0.5] * 3)  # fmt: skip
    cut, boxes = transforms.LocalTransform(types.SimpleNamespace(INPUT=size)), []

    class Picture:
        size = (224, 224)

        def crop(self, box):
            boxes.append((box[0], box[1], box[2] - box[0]))

    cut.t = lambda picture: picture
    for each in maps.numpy():
        cut(Picture(), each)
    return torch.tensor(boxes, dtype=torch.float32)


def _package(folder: Path):
    """ASEN++'s modules.model.model, its backbone files not loaded (both sides are given maps)."""
    stub = types.ModuleType("asenpp_model.resnet")
    stub.get_model = lambda *_, **__: nn.Identity()
    package = types.ModuleType("asenpp_model")
    package.__path__ = []
    sys.modules.update({"asenpp_model": package, "asenpp_model.resnet": stub})
    return load(folder / "modules/model/model.py", "asenpp_model.model")


def _config():
    """ASEN++'s FashionAI settings."""
    def branch(name, size, common):
        attention = types.SimpleNamespace(SPATIAL=types.SimpleNamespace(COMMON_EMBED_SIZE=common, ENABLE=True),
                                          CHANNEL=types.SimpleNamespace(REDUCTION_RATE=2, ENABLE=True))  # fmt: skip
        return types.SimpleNamespace(BACKBONE=types.SimpleNamespace(NAME=name, EMBED_SIZE=size), ATTENTION=attention,
                                     ENABLE=True)  # fmt: skip

    model = types.SimpleNamespace(EMBED_SIZE=1024, ATTRIBUTE=types.SimpleNamespace(EMBED_SIZE=512),
                                  GLOBAL=branch("resnet50", 1024, 512), LOCAL=branch("resnet34", 256, 256))  # fmt: skip
    return types.SimpleNamespace(MODEL=model, DATA=types.SimpleNamespace(NUM_ATTRIBUTES=CONDITIONS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("asen", "asenpp", "csn"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"a clone of the authors' {name}")
    parser.add_argument("--record", type=Path, help="write some of their figures here, as JSON")
    given = parser.parse_args()
    found = their_outputs({name: getattr(given, name).resolve() for name in ("asen", "asenpp", "csn")})
    for name, (mine, theirs) in found.items():
        print(f"{name:<34} shape {tuple(theirs.shape)!s:<18} largest |theirs| {theirs.abs().max():8.4f}   "
              f"largest difference {(mine - theirs).abs().max():.1e}")  # fmt: skip
    if given.record:
        figures = {name: {"first": theirs.flatten()[:: max(1, theirs.numel() // 16)][:16].tolist(),
                          "norm": float(theirs.norm())} for name, (_, theirs) in found.items()}  # fmt: skip
        given.record.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
