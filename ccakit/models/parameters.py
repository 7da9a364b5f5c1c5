"""Parameters of every part, beside the paper's claims of section 4.4; the systems and trunks, as text."""

from __future__ import annotations

from torch import nn

from ccakit.models.base import ConditionalModel
from ccakit.models.registry import count_parameters, create_on_meta, list_models
from ccakit.models.trunks.cnn import WORKING_CNNS
from ccakit.models.trunks.vit import WORKING
from ccakit.text_table import text_table

SYSTEMS = ("triplet", "cca-type1", "cca-type2")
PAPER_TRUNK, PAPER_COUNT = "vit_base_r50_s16_224", 97_890_112  # timm's count, which section 4.4 rounds to 98M


def count_parts(trunk: str, conditions: int, read_block: int | None = None) -> tuple[dict, str]:
    """Count the parts of the three ViT systems on a trunk; give the counts, and `ccakit params`'s text.

    read_block: the block L that is read, the trunk's last by default; those behind it are not there.
    Section 4.4: the ViT has 98M parameters, and "fewer than 0.1M" are added for the condition token. Where
    the FC of Eq. 2, 3 replaces W_q, Type-2 adds K*D; Type-1 takes D*D - K*D away. Where a trunk's W_q has no
    bias, or a pool's learned query goes too, it is D more or less.
    """
    shared = dict(conditions=conditions, trunk=trunk, read_block=read_block)
    models = {name: create_on_meta(name=name, **shared) for name in SYSTEMS}
    counts = {name: _count_parts_of(model) for name, model in models.items()}
    body = {name: sum(parts.values()) - parts["head"] for name, parts in counts.items()}
    type1, type2 = (body[name] - body["triplet"] for name in ("cca-type1", "cca-type2"))
    plain, width = models["triplet"].block, models["triplet"].trunk.embed_dim
    query = count_parameters(plain.q) + (0 if plain.latent is None else plain.latent.numel())  # CCA has none
    checks = [
        ("cca-type1 against the plain ViT", type1, (conditions + 1) * plain.width - query),
        ("cca-type2 against the plain ViT", type2, (conditions + plain.width) * width + plain.width - query),
    ]
    if trunk == PAPER_TRUNK and read_block is None:
        checks.insert(0, ("the plain ViT, section 4.4: 98M (97.89M)", body["triplet"], PAPER_COUNT))
    rows = [["part", *SYSTEMS]]
    for part in counts["cca-type2"]:
        rows.append([part, *(f"{parts.get(part, 0):,}" for parts in counts.values())])
    read = "" if read_block is None else f" to block {read_block}, which is L"
    lines = [f"{trunk}{read}, K = {conditions} conditions", text_table(rows)]
    for text, counted, expected in checks:
        match = "yes" if counted == expected else "no"
        lines.append(f"{text}: expected {expected:+,}, counted {counted:+,}, match: {match}")
    match = "yes" if max(type1, type2) < 100_000 else "no"
    lines.append(f'"fewer than 0.1M parameters are added": match: {match}')
    lines.append("(the head of Eq. 7 is every system's and left out of the comparison)")
    all_match = all(counted == expected for _, counted, expected in checks)
    result = {"trunk": trunk, "read_block": read_block, "conditions": conditions, "parts": counts}
    return {**result, "match": all_match}, "\n".join(lines)


def _count_parts_of(model: ConditionalModel) -> dict[str, int]:
    """Count the parameters of each part of a ViT system; parts that it does not have count 0."""
    trunk, block, token = model.trunk, model.block, getattr(model, "token", None)
    parts = {
        "patch embedding": trunk.patch_embed,
        "[CLS], position": trunk.position,
        "blocks 1 .. L-1": trunk.blocks,
        "block L: W_q": block.q,
        "block L: W_k, W_v": block.kv,
        "block L: projection": block.proj,
        "block L: FFN": block.mlp,
        "condition token: FC (Eq. 2, 3)": getattr(token, "fc", None),
        "norms": nn.ModuleList([trunk.norm_pre, block.norm1, block.norm2, model.norm]),
        "head": model.head,
    }
    counts = {name: 0 if part is None else count_parameters(part) for name, part in parts.items()}
    mask = getattr(token, "mask", None)
    counts["condition token: M (Eq. 3)"] = 0 if mask is None else mask.numel()
    if rest := count_parameters(model) - sum(counts.values()):
        counts["other (LayerScale, QK norms)"] = rest
    return counts


def list_systems() -> str:
    """Describe the systems and trunks there are, as text."""
    rows = [["system", "parameters", "source", "how it is built"]]
    for info in list_models():
        rows.append([info.name, f"{info.parameters():,}", info.system.source, info.faithfulness])
    lines = [
        text_table(rows, left=(0, 2, 3)),
        "(parameters for FashionAI's 8 attributes, on resnet50 to its third stage, or vit_base_r50_s16_224)",
        "trunks of triplet, networks, tf-*, cca-*: timm's plain vision transformers, such as",
        *WORKING,
        "trunks of the others: timm's CNNs, such as",
        *WORKING_CNNS,
    ]
    separate = []
    for info in list_models():
        if not info.system.shares_trunk:
            separate.append(f"{info.name} (unless on kept features)" if info.system.if_shared else info.name)
    lines.append(f"one pass of the trunk serves all conditions, but not in: {', '.join(separate)}")
    return "\n".join(lines)
