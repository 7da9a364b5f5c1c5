"""Our systems beside their authors' code: the same weights and inputs, the largest difference of the outputs.

    git clone https://github.com/Maryeon/asen && git clone https://github.com/Maryeon/asenpp
    git clone https://github.com/andreasveit/conditional-similarity-networks
    python benchmarks/authors_code.py --asen asen --asenpp asenpp --csn conditional-similarity-networks

Nothing of their code is kept here. Both sides get the same numbers as weights and run in float32 on CPU, once from a
random feature map in the place of the CNN's output, and once from pictures, each through its own CNN: timm's here,
theirs there. Their code's pre-trained weights are not downloaded, as ours replace them.
`--record FILE` writes a few of THEIR output figures, on weights and inputs that a formula makes, for the tests.
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
from ccakit.models.crops import attended_boxes, cut_picture
from ccakit.models.csn import ConditionMask
from ccakit.models.registry import model_info
from ccakit.models.trunks.cnn import MapTrunk, create_map_trunk

CONDITIONS, CHANNELS, SIDE = 8, 1024, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STARTS = ("", " from pictures")
CROPPED = (
    "asen-pp from pictures, local",
    "asen-pp from pictures, crops",
)  # their crops are not ours: not recorded
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
    """Numbers from a formula, the same everywhere and without order: (-scale, scale), by the index and a key."""
    index = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(1 + 1000 * key)
    hashed = (index * np.uint64(2654435761) % np.uint64(2**32)) * np.uint64(40503) % np.uint64(65521)
    return torch.from_numpy(scale * (2 * hashed.astype(np.float64) / 65521 - 1)).float().view(shape)


def fill(module: nn.Module, but: tuple[str, ...] = ()) -> None:
    """Weights by `made`, matrices scaled by fan-in, norms around 1; what is named in `but` is left as it is."""
    state = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    for place, name in enumerate(sorted(name for name in state if not name.startswith(but))):
        tensor, vector = state[name], state[name].dim() < 2
        fan_in = 16 if name in ("condition.weight", "mask.table") else tensor[0].numel()
        around = 1.0 if vector and name.endswith(("weight", "running_var")) else 0.0
        tensor.copy_(around + made(tuple(tensor.shape), place, 0.2 if vector else 4 / math.sqrt(fan_in)))


def given_map(channels: int = CHANNELS, side: int = 224) -> MapTrunk:
    """A trunk that passes a feature map on, in the place of a CNN's."""
    return MapTrunk(nn.Identity(), nn.Identity(), channels, (side, side))


@torch.no_grad()
def cnn(name: str, images: Tensor) -> MapTrunk:
    """A timm CNN cut as ours are, its weights by the formula, its BatchNorms' statistics those of `images`.

    Their biases lie around 1: where ReLUs cut little, random layers hardly enlarge what processors round differently.
    """
    trunk = create_map_trunk(name, pretrained=False, image_size=images.shape[-1])[0]
    fill(trunk)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.bias.add_(1.0)
    trunk.train()(images)
    return trunk.eval()


@torch.no_grad()
def ours(name: str, trunk: MapTrunk | None = None, **options) -> nn.Module:
    """A system of ours, its weights by the formula, but for its trunks' and for masks that begin as they are."""
    if name == "asen-pp":
        options = {"crop": "image", "local": given_map(256, 112), **options}
    model = model_info(name).build(trunk or given_map(), CONDITIONS, **options)
    model.advance(1.0)
    fill(model, ("trunk.", "local.") + (("mask.table",) if name in ("csn-preset", "csn-fixed") else ()))
    return model.eval()


def hand_over(names: dict[str, str], model: nn.Module, theirs: nn.Module) -> nn.Module:
    """Our weights into their model, by name: into all of it, but masks that begin as they are and a CNN's unused FC."""
    state, target, given = model.state_dict(), theirs.state_dict(), set()
    for mine, other in names.items():
        for key in [key for key in state if key == mine or key.startswith(mine + ".")]:
            target[other + key[len(mine) :]].copy_(state[key])
            given.add(target[other + key[len(mine) :]].data_ptr())
    left = {key for key, tensor in target.items() if tensor.data_ptr() not in given and "net.fc." not in key}
    assert left <= {"masks.weight"}, f"ours has nothing for their {sorted(left)}"
    return theirs.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """A global map, a local one and conditions."""
    condition = torch.arange(6) * 5 % CONDITIONS
    return made((6, CHANNELS, SIDE, SIDE), 50, 2), made((6, 256, 7, 7), 70, 2), condition


def pictures() -> np.ndarray:
    """Six RGB pictures of photographs' spectrum: (6, 224, 224, 3) uint8."""
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(224)] * 2))
    frequency[0, 0] = np.inf  # no mean
    waves = np.fft.ifft2(np.fft.fft2(made((6, 3, 224, 224), 90)) / frequency).real
    return np.uint8((128 + 50 * waves / waves.std()).clip(0, 255)).transpose(0, 2, 3, 1)


@cache
def images(step: int = 1) -> Tensor:
    """The pictures as a CNN takes them, every `step`-th pixel of a line: (6, 3, 224, 224) for 1."""
    transform = ImageTransform((224, 224), MEAN, STD, crop_pct=1.0)
    return torch.stack([transform(picture) for picture in pictures()])[..., ::step, ::step]


def load(folder: Path, *names: str) -> list:
    """The authors' modules, by name."""
    sys.path.insert(0, str(folder))
    return [importlib.import_module(name) for name in names]


@torch.no_grad()
def their_outputs(folders: dict[str, Path]) -> Found:
    """name -> (ours, theirs), on the formula's weights and inputs."""
    torch.Tensor.cuda = lambda self, *_: self  # their first version moves its one-hots to a GPU
    torch.utils.model_zoo.load_url = lambda *_, **__: {}  # their CNNs would load ImageNet's weights
    trunk = cnn("resnet50", images())
    return {**csn(folders["csn"]), **asen(folders["asen"], trunk), **asen_pp(folders["asenpp"], trunk)}


def flags(name: str) -> tuple[bool, bool]:
    """Both codes' words for CSN's masks: learned, and begun disjoint."""
    return name != "csn-fixed", name == "csn-preset"


def csn(folder: Path) -> Found:
    """CSN's own code, from pictures of 112 pixels through its ResNet-18, and the masks that it begins with."""
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
    """The masked embeddings of CSN's own code, and its two losses of two triplets: anchors, positives, negatives."""
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
    """Our masks as they begin, of DARN's nine conditions, which do not divide the channels."""
    return ConditionMask(name.removeprefix("csn-"), 9, CHANNELS).table


def asen(folder: Path, trunk: MapTrunk) -> Found:
    """ASEN's two versions, and CSN as it stands beside them: from a map, and from pictures through a ResNet-50."""
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
    """ASEN++'s embedding from the maps of both branches."""
    given = model.condition(condition)[:, None]
    whole = model.head(model.attend(x, given)[0])[:, 0]
    part = model.local_head(model.local_attend(local, given)[0])[:, 0]
    return torch.cat([BETA**0.5 * whole, (1 - BETA) ** 0.5 * part], dim=1)


def asen_pp(folder: Path, trunk: MapTrunk) -> Found:
    """ASEN++: both branches, from maps and from pictures, as its own evaluation joins them; and the crop's place."""
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
    """ASEN++ whose conditions look for what stands at one place of their map, so that crops are parts of pictures."""
    attend, rows, given = model.attend, torch.arange(6), model.condition(inputs()[-1])
    embedded = torch.tanh(attend.spatial_image(x)).flatten(2)  # (6, common, N)
    wanted = 0.7 * embedded[rows, :, 30 * rows + 20]  # (6, common)
    attend.spatial_condition.weight.copy_((torch.linalg.pinv(given) @ wanted).T)
    return model


def from_pictures(model: nn.Module, theirs: nn.Module, evaluate, whole, cut) -> Found:
    """All of ASEN++. Their crops are not ours, which is told apart: our local branch sees theirs, too."""
    condition, files = inputs()[-1], [Image.fromarray(picture) for picture in pictures()]
    out = evaluate(theirs, files, condition, whole, cut, "cpu")
    their_map, tokens = theirs(images(), condition)[1], model.encode(images())
    crops = torch.stack([cut(file, where) for file, where in zip(files, their_map.numpy())])
    where = model.attention(tokens, condition)[:, 0]
    same, levels = (
        branches(model, tokens.tokens, model.local(crops), condition),
        255 * torch.tensor(STD).view(3, 1, 1),
    )
    return {
        "asen-pp from pictures, map": (where, their_map),
        "asen-pp from pictures, global": (same[:, :CHANNELS], out[:, :CHANNELS]),
        "asen-pp from pictures, local, on their crops": (same[:, CHANNELS:], out[:, CHANNELS:]),
        "asen-pp from pictures, local, each on its own": (
            model.embed(tokens, condition)[:, CHANNELS:],
            out[:, CHANNELS:],
        ),
        "asen-pp from pictures, crops (of 255)": (
            cut_picture(images(), attended_boxes(where, 224), 112) * levels,
            crops * levels,
        ),
    }


def peaked() -> Tensor:
    """Maps with peaks at many places, some at the border."""
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(200, 2, generator=generator) * 16 - 1
    widths = torch.rand(200, 1, 1, generator=generator) * 6 + 0.5
    return torch.exp(-((x - centres[:, :1, None]) ** 2 + (y - centres[:, 1:, None]) ** 2) / widths)


def their_boxes(cut) -> Tensor:
    """The squares that ASEN++'s LocalTransform cuts by these maps, of a picture whose colors are its places."""
    y, x = np.mgrid[:224, :224]
    places = Image.fromarray(np.uint8(np.stack([x, y, x], axis=-1)))
    cut.t = lambda part: (*part.getpixel((0, 0))[:2], part.width)
    return torch.tensor([cut(places, each) for each in peaked().numpy()], dtype=torch.float32)


def _config():
    """ASEN++'s FashionAI settings."""
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
        figures = {
            name: {
                "first": theirs.flatten()[:: max(1, theirs.numel() // 16)][:16].tolist(),
                "norm": float(theirs.norm()),
            }
            for name, (_, theirs) in found.items()
            if not name.startswith(CROPPED)
        }
        given.record.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
