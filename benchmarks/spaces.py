"""All K spaces of an image for less than one plain forward pass.

    python -m benchmarks.spaces                 # two large trunks and lite; some 10 minutes
    python -m benchmarks.spaces --trunks lite

Sides, on the same images, weights and threads (float32, batch 8):

- plain: the forward of the timm model, from images to the pooled and normed [CLS];
- plain [CLS]: the same model, but its last block computes only the [CLS] row. It gives the same output
  (checked). It stands here for honesty: what CCA saves against `plain` comes from this, not from the
  condition;
- spaces K: from images to all K embeddings (CCA, Type-2);
- K forwards: one conditional forward for each condition, which is how the field's code computes K embeddings.
  They must equal `spaces` (checked).

Floor: operations. torch's FlopCounterMode counts the multiply-adds of products and convolutions; attention is
added by hand. The last block of the plain model computes q, attention, proj and MLP for all 1+N tokens, and
CCA for K rows. At K = 8 and N = 196 that leaves k and v, 2/12 of the block's products, so that about 0.945 of
a hybrid's forward remains. The rest of the time: the first norm and k, v run over all tokens on either side,
and small products (K rows a batch) use the cores less well than large ones. Memory: what one forward adds to
a fresh process that holds the weights.
"""

from __future__ import annotations

import json

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Peak, Row, agree, alternate, begin, in_process, make_parser, report

TRUNKS = ("vit_base_r50_s16_224", "vit_base_patch16_224", "lite")
K, MANY = 8, 64
COMPARED = {  # two sides, and the limit of the ratio of their times
    (f"spaces {K}", "plain"): "<= 0.97",
    (f"spaces {K}", f"{K} forwards"): f"<= {1 / 7:.4f}",
    (f"spaces {MANY}", f"spaces {K}"): "<= 1.05",
    (f"spaces {K}", "plain [CLS]"): "<= 1.02",
    ("plain [CLS]", "plain"): "",
}
CLAIMS = {
    f"{trunk}: {side} / {other}": limit
    for trunk in TRUNKS
    for (side, other), limit in COMPARED.items()
    if limit
}


class RowModel(nn.Module):
    """The plain model whose last block computes only the [CLS] row; it shares the weights of `vit`."""

    def __init__(self, vit) -> None:
        from ccakit.models.read_block import ReadBlock
        from ccakit.models.trunks.block_parts import block_parts, row_norm
        from ccakit.models.trunks.vit import Trunk

        super().__init__()
        self.trunk, self.norm = Trunk(vit), row_norm(vit)
        self.block = ReadBlock(block_parts(vit), keep_query=True)

    def forward(self, images):
        return self.norm(self.block.cls_row(self.trunk(images)))[:, 0]


def models(trunk: str, image_size: int | None = None) -> dict[str, nn.Module]:
    """Create the model of each side; all share the random weights of one trunk.

    image_size: pixels a side, by default the trunk's own.
    """
    from ccakit.models.cca import CCA
    from ccakit.models.trunks.vit import create_vit

    torch.manual_seed(0)
    vit = create_vit(trunk, pretrained=False, image_size=image_size).eval()
    made = {"plain": vit, "plain [CLS]": RowModel(vit)}
    made.update({f"spaces {k}": CCA(vit, k, "type2") for k in (K, MANY)})
    return {name: model.eval() for name, model in made.items()}


def forwards(model, images) -> torch.Tensor:
    """Run one conditional forward for each condition: (B, K, E)."""
    conditions = (torch.full((len(images),), c) for c in range(model.conditions))
    return torch.stack([model(images, condition) for condition in conditions], dim=1)


def sides(made: dict, images) -> dict:
    """Give what to time, by the name of the side."""
    calls = {name: (lambda model=model: model(images)) for name, model in made.items()}
    return {**calls, f"{K} forwards": lambda: forwards(made[f"spaces {K}"], images)}


def check(made: dict, images) -> dict[str, float]:
    """Give the largest differences of the sides that must agree; Disagreement where they do not."""
    with torch.inference_mode():
        model, plain, cls_alone = made[f"spaces {K}"], made["plain"](images), made["plain [CLS]"](images)
        return {
            "plain [CLS]": agree("plain and [CLS] alone", plain, cls_alone, 1e-3),
            f"spaces {K}": agree("spaces and K forwards", model(images), forwards(model, images), 1e-4),
        }


def operations(model, image, rows: int | None = None) -> float:
    """Count the operations of an image's forward: twice the multiply-adds.

    rows: those of the last block's attention, by default all tokens.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    counted = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    products = sum(count for op, count in counted.items() if "attention" not in op)
    return products + attention(model, image, rows)


def attention(model, image, rows: int | None) -> float:
    """Count q k^T and the weighted sum of v in all blocks, by hand: the counter knows them on some devices
    only."""
    trunk = getattr(model, "trunk", model)
    blocks = list(trunk.blocks) + ([model.block] if hasattr(model, "block") else [])
    grid = trunk.grid_size if hasattr(trunk, "grid_size") else trunk.patch_embed.grid_size
    tokens, width = grid[0] * grid[1] + trunk.num_prefix_tokens, trunk.embed_dim
    rows_of_blocks = [tokens] * (len(blocks) - 1) + [rows or tokens]
    return sum(2 * 2 * count * tokens * width for count in rows_of_blocks) * len(image)


def memory(trunk: str, side: str, batch: int) -> dict:
    """Measure the bytes that one forward of a side adds, and those that the process had before it."""
    made = models(trunk)
    images = pictures(made["plain"], batch)
    run = sides(made, images)[side]
    with torch.inference_mode(), Peak() as peak:
        run()
    return {"added": peak.bytes, "before": peak.before}


def pictures(vit, batch: int) -> torch.Tensor:
    size = vit.patch_embed.img_size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def measure(trunk: str, batch: int, rounds: int, threads: int, quick: bool = False) -> list[Row]:
    """Measure one trunk: its rows."""
    made = models(trunk)
    images = pictures(made["plain"], batch)
    differences = check(made, images)
    with torch.inference_mode():
        times = alternate(sides(made, images), rounds)
    last_rows = {"plain [CLS]": 1, f"spaces {K}": K, f"spaces {MANY}": MANY}
    ops = {name: operations(model, images[:1], last_rows.get(name)) for name, model in made.items()}
    ops[f"{K} forwards"] = K * ops["plain [CLS]"]
    rows = _ratios(trunk, times, ops, differences)
    for name in (*made, f"{K} forwards"):
        rate = batch * ops[name] / times[name] / 1e9
        note = f"{ops[name] / 1e9:.3f} GFLOP an image, {rate:.0f} GFLOP/s"
        rows.append(Row(f"{trunk}: {name}", 1000 * times[name] / batch, "ms an image", note=note))
    for name in ("plain", f"spaces {K}") if quick else (*made, f"{K} forwards"):
        found = in_process("spaces", "--memory", trunk, name, str(batch), threads=threads)
        note = f"to {found['before'] / 2**20:.0f} MiB, weights and libraries"
        rows.append(Row(f"{trunk}: {name}, peak memory", found["added"] / 2**20, "MiB added", note=note))
    return rows


def _ratios(trunk: str, times, ops: dict[str, float], differences: dict[str, float]) -> list[Row]:
    """Compare the sides: the ratio of their times, with that of their operations as the floor."""
    rows = []
    for (side, other), limit in COMPARED.items():
        note, floor = times.spread(side, other), ops[side] / ops[other]
        if side in differences:
            note += f"; outputs differ by {differences[side]:.1e}"
        if limit and floor > float(limit.split()[1]):  # in a small trunk, K rows are a large part
            note += "; the operations alone are more"
        ratio = times.ratio(side, other)
        rows.append(Row(f"{trunk}: {side} / {other}", ratio, "of its time", floor=floor, note=note))
    return rows


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument("--trunks", nargs="+", default=list(TRUNKS), choices=TRUNKS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--memory", nargs=3, metavar=("TRUNK", "SIDE", "BATCH"), help="one forward, in a fresh process"
    )
    options = begin(parser, argv)
    if options.memory:
        trunk, side, batch = options.memory
        found = memory(trunk, side, int(batch))
        print(json.dumps(found))
        return found
    trunks, batch = (["lite"], 2) if options.quick else (options.trunks, options.batch)
    rows = []
    for trunk in trunks:
        rows += measure(trunk, batch, options.rounds, options.threads, options.quick)
    return report("spaces", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
