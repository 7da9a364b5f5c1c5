"""Our systems beside their authors' code: the same weights and inputs, the largest difference of the outputs.

    git clone https://github.com/Maryeon/asen && git clone https://github.com/Maryeon/asenpp
    git clone https://github.com/andreasveit/conditional-similarity-networks
    python benchmarks/authors_code.py --asen asen --asenpp asenpp --csn conditional-similarity-networks

None of their code is kept here. Both sides get the same numbers as weights and run in float32 on the CPU:
once from a random feature map instead of the CNN's output, and once from pictures, each through its own CNN
(ours is timm's). The pre-trained weights of their code are not downloaded, as ours replace them. `--record
FILE` writes a few numbers of THEIR outputs for the tests; a formula makes the weights and inputs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import sys
import types
from functools import cache, partial
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from ccakit.data.transform import ImageTransform
from ccakit.models.asen_pp import BETA
from ccakit.models.crops import attended_boxes, crop_squares
from ccakit.models.csn import ConditionMask
from ccakit.models.registry import model_info
from ccakit.models.trunks.cnn import MapTrunk, create_map_trunk

CONDITIONS, CHANNELS, SIDE = 8, 1024, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STARTS = ("", " from pictures")
# Not recorded, as their crops differ from ours.
CROPPED = ("asen-pp from pictures, local", "asen-pp from pictures, crops")
CSNS = ("csn", "csn-preset", "csn-fixed")
_CSN = {"trunk.backbone.net": "embeddingnet", "head.fc": "embed_fc"}
# our parameter: theirs
NAMES = {
    "csn": {**_CSN, "mask.table": "masks.weight"},
    "csn-preset": _CSN,
    "csn-fixed": _CSN,
    "asen": {
        "trunk.backbone.net": "backbonenet",
        "attend.spatial_condition": "mask_fc1",
        "attend.channel_condition": "mask_fc2",
        "attend.spatial_image": "conv1",
        "attend.spatial_score": "conv2",
        "attend.channel_in": "fc1",
        "attend.channel_out": "fc2",
        "head.fc": "feature_fc",
    },
    "asen-v2": {
        "trunk.backbone.net": "backbonenet",
        "condition": "attr_embedding",
        "attend.spatial_condition": "attr_transform1",
        "attend.spatial_image": "conv1",
        "attend.spatial_norm": "img_bn1",
        "attend.channel_condition": "attr_transform2",
        "attend.channel_in": "fc1",
        "attend.channel_out": "fc2",
    },
    "asen-pp": {
        "trunk.backbone.net": "choices.global.basenet",
        "local.backbone.net": "choices.local.basenet",
        "condition": "choices.global.attrnet.attr_embedding",
        **{
            f"{ours}.{part}": f"choices.{theirs}.attnnet.{name}"
            for ours, theirs in (("attend", "global"), ("local_attend", "local"))
            for part, name in (
                ("spatial_condition", "attr_transform1"),
                ("spatial_image", "conv"),
                ("channel_condition", "attr_transform2"),
                ("channel_in", "fc1"),
                ("channel_out", "fc2"),
            )
        },
        "head.fc": "choices.global.attnnet.feature_fc",
        "local_head.fc": "choices.local.attnnet.feature_fc",
    },
}
Found = dict[str, tuple[Tensor, Tensor]]  # what is compared: ours, theirs


def made(shape: tuple[int, ...], key: float, scale: float = 1.0) -> Tensor:
    """Make numbers in (-scale, scale) by a formula of the index and a key: the same everywhere, without a
    pattern."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(1 + 1000 * key)
    hashed = (index * np.uint64(2654435761) % np.uint64(2**32)) * np.uint64(40503) % np.uint64(65521)
    return torch.from_numpy(scale * (2 * hashed.astype(np.float64) / 65521 - 1)).float().view(shape)


def fill(module: nn.Module, but: tuple[str, ...] = ()) -> None:
    """Fill the weights by `made`: matrices scaled by fan-in, norms around 1.

    but: the beginnings of names that stay as they are.
    """
    state = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    for key, name in enumerate(sorted(name for name in state if not name.startswith(but))):
        tensor, vector = state[name], state[name].dim() < 2
        fan_in = 16 if name in ("condition.weight", "mask.table") else tensor[0].numel()
        around = 1.0 if vector and name.endswith(("weight", "running_var")) else 0.0
        tensor.copy_(around + made(tuple(tensor.shape), key, 0.2 if vector else 4 / math.sqrt(fan_in)))


def given_map(channels: int = CHANNELS, side: int = 224) -> MapTrunk:
    """Create a trunk that passes a feature map on, instead of a CNN's."""
    return MapTrunk(nn.Identity(), nn.Identity(), channels, {"input_size": (3, side, side)})


@torch.no_grad()
def cnn(name: str, images: Tensor) -> MapTrunk:
    """Create a timm CNN, cut as ours are, with weights by the formula and BatchNorm statistics of `images`.

    The biases of the BatchNorms lie around 1: where ReLUs cut little, random layers hardly enlarge
    differences of rounding between processors.
    """
    trunk = create_map_trunk(name, pretrained=False, image_size=images.shape[-1])
    fill(trunk)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.bias.add_(1.0)
    trunk.train()(images)
    return trunk.eval()


@torch.no_grad()
def ours(name: str, trunk: MapTrunk | None = None, **options) -> nn.Module:
    """Create a system of ours with weights by the formula, except its trunks and pre-set masks."""
    if name == "asen-pp":
        options = {"crop": "image", "local": given_map(256, 112), **options}
    info = model_info(name)
    model = info.system(trunk or given_map(), CONDITIONS, **info.fixed, **options)
    model.advance(1.0)
    fill(model, ("trunk.", "local.") + (("mask.table",) if name in ("csn-preset", "csn-fixed") else ()))
    return model.eval()


def hand_over(names: dict[str, str], model: nn.Module, theirs: nn.Module) -> nn.Module:
    """Copy our weights into their model, by name: into all but pre-set masks and the unused FC of a CNN."""
    state, target, given = model.state_dict(), theirs.state_dict(), set()
    for mine, other in names.items():
        for key in [key for key in state if key == mine or key.startswith(mine + ".")]:
            target[other + key[len(mine) :]].copy_(state[key])
            given.add(target[other + key[len(mine) :]].data_ptr())
    left = {key for key, tensor in target.items() if tensor.data_ptr() not in given and "net.fc." not in key}
    assert left <= {"masks.weight"}, f"ours has nothing for their {sorted(left)}"
    return theirs.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Make a global map, a local map, and conditions."""
    condition = torch.arange(6) * 5 % CONDITIONS
    return made((6, CHANNELS, SIDE, SIDE), 50, 2), made((6, 256, 7, 7), 70, 2), condition


def pictures() -> np.ndarray:
    """Make six RGB pictures with the spectrum of photographs: (6, 224, 224, 3) uint8."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(224)] * 2))
    frequency[0, 0] = np.inf  # no mean
    waves = np.fft.ifft2(np.fft.fft2(made((6, 3, 224, 224), 90)) / frequency).real
    return np.uint8((128 + 50 * waves / waves.std()).clip(0, 255)).transpose(0, 2, 3, 1)


@cache
def images(step: int = 1) -> Tensor:
    """Prepare the pictures for a CNN, every `step`-th pixel of a line: (6, 3, 224, 224) for 1."""
    transform = ImageTransform((224, 224), MEAN, STD, crop_pct=1.0)
    return torch.stack([transform(picture) for picture in pictures()])[..., ::step, ::step]


def load(folder: Path, *names: str) -> list:
    """Import modules of the authors, by name."""
    sys.path.insert(0, str(folder))
    return [importlib.import_module(name) for name in names]


@torch.no_grad()
def their_outputs(folders: dict[str, Path]) -> Found:
    """Compute (ours, theirs) by name, on weights and inputs of the formula."""
    torch.Tensor.cuda = lambda self, *_: self  # their first version moves its one-hots to a GPU
    torch.utils.model_zoo.load_url = lambda *_, **__: {}  # their CNNs would load ImageNet's weights
    trunk = cnn("resnet50", images())
    return {**csn(folders["csn"]), **asen(folders["asen"], trunk), **asen_pp(folders["asenpp"], trunk)}


def flags(name: str) -> tuple[bool, bool]:
    """Describe the masks of a CSN as both codes do: whether learned, and whether disjoint at first."""
    return name != "csn-fixed", name == "csn-preset"


def csn(folder: Path) -> Found:
    """Compare with CSN's own code: pictures of 112 pixels through its ResNet-18, and its masks at the
    start."""
    code, resnet, triplets = load(folder, "csn", "Resnet_18", "tripletnet")
    trunk, x, condition, found = cnn("resnet18", images(2)), images(2), inputs()[-1], {}
    for name in CSNS:
        model = ours(name, trunk, embed_dim=64)
        theirs = code.ConditionalSimNet(resnet.resnet18(), CONDITIONS, 64, *flags(name))
        hand_over({**NAMES[name], "head.fc": "embeddingnet.fc_embed"}, model, theirs)
        *_, mask, embedding, _ = triplets.CS_Tripletnet(theirs)(x[:2], x[4:], x[2:4], condition[:2])
        other = (
            theirs(x, condition)[0],
            torch.stack([5e-3 * embedding / 2**0.5, 5e-4 * mask / 2]),
        )  # its main.py's
        mine = csn_outputs(name, model, model.encode(x))
        found.update(zip(mine, zip(mine.values(), other)))
        if name != "csn":
            masks = code.ConditionalSimNet(None, 9, CHANNELS, *flags(name)).masks.weight
            found[f"{name} (CSN's), masks"] = begun(name), masks.detach()
    return found


def csn_outputs(name: str, model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Compute the masked embeddings of CSN's own code, and its two losses of two triplets."""
    condition = inputs()[-1]
    losses = model.outputs(tokens, condition[:2].repeat(3), condition).terms
    weighted = torch.stack(
        [model.own_losses[name] * losses[name] for name in ("embedding_norm", "mask_norm")]
    )
    return {
        f"{name} (CSN's) from pictures, before the L2": model.masked(tokens, condition[:, None])[0][:, 0],
        f"{name} (CSN's) from pictures, two losses": weighted,
    }


def begun(name: str) -> Tensor:
    """Create our masks at the start, for DARN's nine conditions, which do not divide the channels."""
    return ConditionMask(name.removeprefix("csn-"), 9, CHANNELS).table


def asen(folder: Path, trunk: MapTrunk) -> Found:
    """Compare with ASEN's two versions and its CSN: from a map, and from pictures through a ResNet-50."""
    (code, resnet), (x, _, condition), found = load(folder, "model", "resnet"), inputs(), {}
    kinds = {"asen": code.ASENet, "asen-v2": code.ASENet_V2}
    for name in (*CSNS, "asen", "asen-v2"):
        kind = kinds.get(name) or partial(
            code.ConditionalSimNet, learnedmask=flags(name)[0], prein=flags(name)[1]
        )
        for start in STARTS:
            mine, their_cnn, given = (
                (trunk, resnet.resnet50_feature(), images()) if start else (None, nn.Identity(), x)
            )
            model = ours(name, mine)
            theirs = hand_over(NAMES[name], model, kind(their_cnn, CHANNELS, CONDITIONS))
            found[name + start] = model(given, condition), theirs(given, condition)
            if name in kinds:
                where = model.attention(model.encode(given), condition)[:, 0]
                found[f"{name}{start}, map"] = where, theirs.get_heatmaps(given, condition)
        if name in ("csn-preset", "csn-fixed"):
            found[f"{name}, masks"] = begun(name), kind(None, CHANNELS, 9).masks.weight.detach()
    return found


def branches(model: nn.Module, x: Tensor, local: Tensor, condition: Tensor) -> Tensor:
    """Compute ASEN++'s embedding from the maps of both branches."""
    given = model.condition(condition)[:, None]
    global_branch = model.head(model.attend(x, given)[0])[:, 0]
    local_branch = model.local_head(model.local_attend(local, given)[0])[:, 0]
    return torch.cat([BETA**0.5 * global_branch, (1 - BETA) ** 0.5 * local_branch], dim=1)


def asen_pp(folder: Path, trunk: MapTrunk) -> Found:
    """Compare with ASEN++: both branches, joined as it does, from maps and from pictures; and its crops."""
    names = (f"modules.{name}" for name in ("model.model", "engine.evaluation", "data.transforms.transforms"))
    networks, evaluation, transforms = load(folder, *names)
    kind, evaluate, cut = networks.ASEN, evaluation.process_batch, transforms.LocalTransform(_config())
    (x, local, condition), model, theirs = inputs(), ours("asen-pp"), kind(_config())
    for branch in theirs.choices.values():
        branch["basenet"] = nn.Identity()
    hand_over(NAMES["asen-pp"], model, theirs)
    out = evaluate(theirs, [*zip(x, local)], condition, lambda pair: pair[0], lambda pair, _: pair[1], "cpu")
    found = {
        "asen-pp, both branches": (branches(model, x, local, condition), out),
        "asen-pp, map": (model.attention(x, condition)[:, 0], theirs(x, condition)[1]),
    }
    model = looking(ours("asen-pp", trunk, local=cnn("resnet34", images(2))), trunk(images()))
    theirs = hand_over(NAMES["asen-pp"], model, kind(_config()))
    found.update(from_pictures(model, theirs, evaluate, transforms.GlobalTransform(_config()), cut))
    return {**found, "asen-pp, crop (pixels of 224)": (attended_boxes(peaked(), 224) * 224, their_boxes(cut))}


@torch.no_grad()
def looking(model: nn.Module, x: Tensor) -> nn.Module:
    """Make each condition of ASEN++ look at one place of its map, so that crops are parts of pictures."""
    attend, rows, given = model.attend, torch.arange(6), model.condition(inputs()[-1])
    embedded = torch.tanh(attend.spatial_image(x)).flatten(2)  # (6, common, N)
    wanted = 0.7 * embedded[rows, :, 30 * rows + 20]  # (6, common)
    attend.spatial_condition.weight.copy_((torch.linalg.pinv(given) @ wanted).T)
    return model


def from_pictures(model: nn.Module, theirs: nn.Module, evaluate, prepare, cut) -> Found:
    """Compare all of ASEN++. Their crops differ from ours, so our local branch also sees theirs."""
    condition, files = inputs()[-1], [Image.fromarray(picture) for picture in pictures()]
    out = evaluate(theirs, files, condition, prepare, cut, "cpu")
    their_map, tokens = theirs(images(), condition)[1], model.encode(images())
    crops = torch.stack([cut(file, where) for file, where in zip(files, their_map.numpy())])
    where = model.attention(tokens, condition)[:, 0]
    our_crops = crop_squares(images(), attended_boxes(where, 224), 112, antialias=True)
    same = branches(model, tokens.tokens, model.local(crops), condition)
    own_local = model.embed(tokens, condition)[:, CHANNELS:]
    levels = 255 * torch.tensor(STD).view(3, 1, 1)
    return {
        "asen-pp from pictures, map": (where, their_map),
        "asen-pp from pictures, global": (same[:, :CHANNELS], out[:, :CHANNELS]),
        "asen-pp from pictures, local, on their crops": (same[:, CHANNELS:], out[:, CHANNELS:]),
        "asen-pp from pictures, local, each on its own": (own_local, out[:, CHANNELS:]),
        "asen-pp from pictures, crops (of 255)": (our_crops * levels, crops * levels),
    }


def peaked() -> Tensor:
    """Make maps with peaks at many places, some at the border."""
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(200, 2, generator=generator) * 16 - 1
    widths = torch.rand(200, 1, 1, generator=generator) * 6 + 0.5
    return torch.exp(-((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2) / widths)


def their_boxes(cut) -> Tensor:
    """Read the squares that ASEN++'s LocalTransform cuts by these maps.

    The picture that it cuts has its positions as colors.
    """
    y, x = np.mgrid[:224, :224]
    positions = Image.fromarray(np.uint8(np.stack([x, y, x], axis=-1)))
    cut.t = lambda part: (*part.getpixel((0, 0))[:2], part.width)
    return torch.tensor([cut(positions, weights) for weights in peaked().numpy()], dtype=torch.float32)


def _config():
    """Give ASEN++'s settings for FashionAI."""
    space = types.SimpleNamespace

    def branch(name, size, common):
        attention = space(
            SPATIAL=space(COMMON_EMBED_SIZE=common, ENABLE=True), CHANNEL=space(REDUCTION_RATE=2, ENABLE=True)
        )
        return space(BACKBONE=space(NAME=name, EMBED_SIZE=size), ATTENTION=attention, ENABLE=True)

    return space(
        MODEL=space(
            EMBED_SIZE=1024,
            ATTRIBUTE=space(EMBED_SIZE=512),
            GLOBAL=branch("resnet50", 1024, 512),
            LOCAL=branch("resnet34", 256, 256),
        ),
        DATA=space(NUM_ATTRIBUTES=CONDITIONS),
        INPUT=space(LOCAL_SIZE=112, GLOBAL_SIZE=224, THRESHOLD=0.1, PIXEL_MEAN=MEAN, PIXEL_STD=STD),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("asen", "asenpp", "csn"):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"a clone of the authors' {name}")
    parser.add_argument("--record", type=Path, help="write some of their figures here, as JSON")
    given = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {platform.machine()}")
    found = their_outputs({name: getattr(given, name).resolve() for name in ("asen", "asenpp", "csn")})
    for name, (mine, theirs) in found.items():
        apart = (mine - theirs).abs()
        print(
            f"{name:<46} {tuple(theirs.shape)!s:<18} largest |theirs| {theirs.abs().max():9.4f}   "
            f"largest difference {apart.max():.1e}, mean {apart.mean():.1e}"
        )
    if given.record:
        figures = {}
        for name, (_, theirs) in found.items():
            if not name.startswith(CROPPED):
                first = theirs.flatten()[:: max(1, theirs.numel() // 16)][:16].tolist()
                figures[name] = {"first": first, "norm": float(theirs.norm())}
        given.record.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
