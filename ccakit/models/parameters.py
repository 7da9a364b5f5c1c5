"""Parameters of every part, beside the paper's claims of section 4.4."""

from __future__ import annotations

import torch

from ccakit.models.registry import create_model, list_models
from ccakit.models.trunks.cnn import WORKING_CNNS
from ccakit.models.trunks.vit import WORKING

CLAIMS = {"vit_base_r50_s16_224": {"triplet": 97_890_112}}
"""timm's count of the paper's trunk, which section 4.4 rounds to 98M."""


def count_parts(trunk: str, conditions: int) -> tuple[dict, str]:
    """Counts of each part of the three ViT systems on a trunk, and the text that `ccakit params` prints.

    Section 4.4: the ViT has 98M parameters, and "fewer than 0.1M" are added for the condition token. Where the FC
    of Eq. 2, 3 stands in the place of W_q: Type-2 adds K*D; Type-1 takes D*D - K*D away.
    """
    width = _width(trunk)
    counts = {name: _parts(name, trunk, conditions) for name in ("triplet", "cca-type1", "cca-type2")}
    plain = sum(v for part, v in counts["triplet"].items() if part != "head")
    expected = {"cca-type1": conditions * width - width * width, "cca-type2": conditions * width}
    lines = [
        f"{trunk}, K = {conditions} conditions",
        f"{'part':<34}" + "".join(f"{name:>14}" for name in counts),
    ]
    for part in {part: None for of in counts.values() for part in of}:
        lines.append(f"{part:<34}" + "".join(f"{of.get(part, 0):>14,}" for of in counts.values()))
    checks = []
    if conditions == 8 and trunk in CLAIMS:
        checks.append(("the plain ViT, section 4.4: 98M (97.89M)", plain, CLAIMS[trunk]["triplet"]))
    for name, want in expected.items():
        added = sum(v for part, v in counts[name].items() if part != "head") - plain
        checks.append((f"{name} against the plain ViT", added, want))
    for text, got, want in checks:
        lines.append(f"{text}: expected {want:+,}, counted {got:+,}, match: {'yes' if got == want else 'no'}")
    small = all(abs(got) < 100_000 or got < 0 for _, got, _ in checks[-2:])
    lines.append(f'"fewer than 0.1M parameters are added": match: {"yes" if small else "no"}')
    lines.append("(the head of Eq. 7 is every system's and left out of the comparison)")
    matches = all(got == want for _, got, want in checks)
    return {"trunk": trunk, "conditions": conditions, "parts": counts, "match": matches}, "\n".join(lines)


def _model(name: str, trunk: str, conditions: int):
    with torch.device("meta"):  # shapes only: no memory, no time
        return create_model(name, trunk=trunk, conditions=conditions, pretrained=False)


def _width(trunk: str) -> int:
    return _model("cca-type2", trunk, 1).trunk.embed_dim


def _parts(name: str, trunk: str, conditions: int) -> dict[str, int]:
    model = _model(name, trunk, conditions)
    parts = {
        "patch embedding": model.trunk.patch_embed,
        "[CLS], position": model.trunk.position,
        "blocks 1 .. L-1": model.trunk.blocks,
        "block L: W_q": model.block.q,
        "block L: W_k, W_v": model.block.kv,
        "block L: projection": model.block.proj,
        "block L: FFN": model.block.mlp,
        "condition token: FC (Eq. 2, 3)": getattr(getattr(model, "token", None), "fc", None),
        "norms": [model.trunk.norm_pre, model.block.norm1, model.block.norm2, model.norm],
        "head": model.head,
    }
    counts = {part: _count(modules) for part, modules in parts.items()}
    mask = getattr(getattr(model, "token", None), "mask", None)
    counts["condition token: M (Eq. 3)"] = 0 if mask is None else mask.numel()
    rest = _count(model) - sum(counts.values())
    if rest:
        counts["other (LayerScale, QK norms)"] = rest
    return counts


def _count(modules) -> int:
    if modules is None:
        return 0
    modules = modules if isinstance(modules, list) else [modules]
    return sum(p.numel() for m in modules for p in m.parameters())


def list_systems() -> str:
    """The systems and trunks there are, as text."""
    lines = [f"{'system':<12}{'parameters':>13}  {'source':<32}how it is built"]
    for info in list_models():
        lines.append(f"{info.name:<12}{info.parameters():>13,}  {info.source:<32}{info.faithfulness}")
    lines.append(
        "(parameters for FashionAI's 8 attributes, on resnet50 to its third stage, or vit_base_r50_s16_224)"
    )
    lines += ["trunks of triplet, networks, tf-*, cca-*: timm's plain vision transformers, such as", *WORKING]
    lines += ["trunks of the others: timm's CNNs, such as", *WORKING_CNNS]
    alone = [
        info.name + " (unless on kept features)" * bool(info.if_shared)
        for info in list_models()
        if not info.shares_trunk
    ]
    return "\n".join([*lines, f"one pass of the trunk serves all conditions, but not in: {', '.join(alone)}"])
