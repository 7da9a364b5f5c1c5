"""All K spaces of an image for less than one plain forward pass.

    python -m benchmarks.spaces                 # vit_base_r50_s16_224, vit_base_patch16_224 and lite; some 10 minutes
    python -m benchmarks.spaces --trunks lite

Sides, on the same images, weights and threads (float32, batch 8):

- plain: the timm model's own forward, images to the pooled and normed [CLS];
- plain [CLS]: the same model, whose last block computes the [CLS] row alone. It gives the same output (checked), and
  stands here for honesty: what CCA saves against `plain` comes from this, not from the condition;
- spaces K: images to all K embeddings (CCA, type 2);
- K forwards: one conditional forward a condition, which is how the field's code gets K embeddings. They must equal
  `spaces` (checked).

Floor: operations. Multiply-adds of products and convolutions by torch's FlopCounterMode, attention added by hand:
the last block of the plain model computes q, attention, proj and MLP for all 1+N tokens, CCA for K rows: at K = 8 and
N = 196 that leaves k and v, 2/12 of the block's products, so that about 0.945 of a hybrid's forward remains. What is
above it: the first norm and k, v run over all tokens on either side, and small products (K rows a batch) use the
cores less well than large ones. Memory: what one forward adds to a fresh process that holds the weights.
"""

from __future__ import annotations

import json

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Peak, Row, agree, alternate, begin, in_process, options, report

TRUNKS = ("vit_base_r50_s16_224", "vit_base_patch16_224", "lite")
K, MANY = 8, 64
LIMITS = {"plain": "<= 0.97", "forwards": f"<= {1 / 7:.4f}", "many": "<= 1.05", "row": "<= 1.02"}


class RowModel(nn.Module):
    """The plain model with its last block read at [CLS] alone; shares the weights of `vit`."""

    def __init__(self, vit) -> None:
        from ccakit.models.last_block import LastBlock
        from ccakit.models.trunks.vit import Trunk

        super().__init__()
        self.trunk, self.block, self.norm = Trunk(vit), LastBlock(vit.blocks[-1], keep_query=True), vit.norm

    def forward(self, images):
        return self.norm(self.block.cls_row(self.trunk(images)))[:, 0]


def models(trunk: str) -> dict[str, nn.Module]:
    """The sides' models, which share one trunk's random weights."""
    from ccakit.models.cca import CCA
    from ccakit.models.trunks.vit import create_vit

    torch.manual_seed(0)
    vit = create_vit(trunk, pretrained=False).eval()
    made = {"plain": vit, "plain [CLS]": RowModel(vit)}
    made.update({f"spaces {k}": CCA(vit, k, "type2") for k in (K, MANY)})
    return {name: model.eval() for name, model in made.items()}


def forwards(model, images) -> torch.Tensor:
    """One conditional forward a condition: (B, K, E)."""
    of = (torch.full((len(images),), c) for c in range(model.conditions))
    return torch.stack([model(images, condition) for condition in of], dim=1)


def sides(made: dict, images) -> dict:
    """name -> what to time."""
    calls = {name: (lambda model=model: model(images)) for name, model in made.items()}
    return {**calls, f"{K} forwards": lambda: forwards(made[f"spaces {K}"], images)}


def check(made: dict, images) -> dict[str, float]:
    """The largest differences of sides that must agree."""
    with torch.inference_mode():
        model = made[f"spaces {K}"]
        return {
            "plain [CLS]": agree(
                "plain and [CLS] alone", made["plain"](images), made["plain [CLS]"](images), 1e-3
            ),
            f"spaces {K}": agree("spaces and K forwards", model(images), forwards(model, images), 1e-4),
        }


def operations(model, image, rows: int | None = None) -> float:
    """Multiply-adds times 2 of an image's forward; `rows`: of the last block's attention, by default all tokens."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    counted = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    return sum(count for op, count in counted.items() if "attention" not in op) + attention(
        model, image, rows
    )


def attention(model, image, rows: int | None) -> float:
    """q k^T and the weighted sum of v, in all blocks, by hand: the counter knows them on some devices only."""
    trunk = getattr(model, "trunk", model)
    blocks = list(trunk.blocks) + ([model.block] if hasattr(model, "block") else [])
    grid = trunk.grid_size if hasattr(trunk, "grid_size") else trunk.patch_embed.grid_size
    tokens, width = grid[0] * grid[1] + trunk.num_prefix_tokens, trunk.embed_dim
    rows_of = [tokens] * (len(blocks) - 1) + [rows or tokens]
    return sum(2 * 2 * r * tokens * width for r in rows_of) * len(image)


def memory(trunk: str, side: str, batch: int) -> dict:
    """Bytes that one forward of a side adds, and that the process had before it."""
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
    """The rows of one trunk."""
    made = models(trunk)
    images = pictures(made["plain"], batch)
    differences = check(made, images)
    with torch.inference_mode():
        times = alternate(sides(made, images), rounds)
    ops = {
        name: operations(
            model, images[:1], {"plain [CLS]": 1, f"spaces {K}": K, f"spaces {MANY}": MANY}.get(name)
        )
        for name, model in made.items()
    }
    ops[f"{K} forwards"] = K * ops["plain [CLS]"]
    rows = _ratios(trunk, times, ops, differences)
    for name in (*made, f"{K} forwards"):
        rate = batch * ops[name] / times[name] / 1e9
        note = f"{ops[name] / 1e9:.3f} GFLOP an image, {rate:.0f} GFLOP/s"
        rows.append(Row(f"{trunk}: {name}", 1000 * times[name] / batch, "ms an image", note=note))
    for name in ("plain", f"spaces {K}") if quick else (*made, f"{K} forwards"):
        found = in_process("spaces", "--memory", trunk, name, str(batch), threads=threads)
        rows.append(
            Row(
                f"{trunk}: {name}, peak memory",
                found["added"] / 2**20,
                "MiB added",
                note=f"to {found['before'] / 2**20:.0f} MiB, weights and libraries",
            )
        )
    return rows


def _ratios(trunk: str, times, ops: dict[str, float], differences: dict[str, float]) -> list[Row]:
    """The claims: side, to what, limit."""
    mine, many = f"spaces {K}", f"spaces {MANY}"
    claims = (
        (mine, "plain", LIMITS["plain"]),
        (mine, f"{K} forwards", LIMITS["forwards"]),
        (many, mine, LIMITS["many"]),
        (mine, "plain [CLS]", LIMITS["row"]),
        ("plain [CLS]", "plain", ""),
    )
    rows = []
    for one, to, limit in claims:
        note, floor = times.spread(one, to), ops[one] / ops[to]
        if one in differences:
            note += f"; outputs differ by {differences[one]:.1e}"
        if limit and floor > float(limit.split()[1]):  # so small a trunk that K rows are a part of it
            note += "; the operations alone are more"
        rows.append(Row(f"{trunk}: {one} / {to}", times.ratio(one, to), "of its time", limit, floor, note))
    return rows


def main(argv: list[str] | None = None) -> dict:
    parser = options(__doc__)
    parser.add_argument("--trunks", nargs="+", default=list(TRUNKS), choices=TRUNKS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--memory", nargs=3, metavar=("TRUNK", "SIDE", "BATCH"), help="one forward, in a fresh process"
    )
    given = begin(parser, argv)
    if given.memory:
        trunk, side, batch = given.memory
        found = memory(trunk, side, int(batch))
        print(json.dumps(found))
        return found
    trunks, batch = (["lite"], 2) if given.quick else (given.trunks, given.batch)
    rows = [
        row for trunk in trunks for row in measure(trunk, batch, given.rounds, given.threads, given.quick)
    ]
    return report("spaces", rows, given)


if __name__ == "__main__":
    main()
