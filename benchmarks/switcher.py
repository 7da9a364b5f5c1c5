"""The condition switcher: from the event to the new picture's bytes, neighbours included.

    python benchmarks/switcher.py              # the demo's model (runs/demo, else a smoke run) and vit_base_r50_s16_224
    python benchmarks/switcher.py --json --switches 500

A switch sets the widget's condition, as a click does, and is timed until the picture's PNG bytes, the five neighbours'
thumbnails and all texts are set; never seen neighbours' thumbnails are made on the way. Two rows stand beside it, on
the same pictures, taking turns with it: `from tokens`, where K and V are computed anew at each switch, and `from the
picture`, where the picture is encoded at each switch. All three must give the same bytes (a pixel of the heat may be
rounded otherwise: at most 1 of 255).

The floor of a switch is its PNG: zlib over 256 x 256 x 3 bytes (480 x 480 for the large model), printed beside it. The
rest is the last block's row, the heat's upsampling and colours, the neighbours' products, and the widgets' messages.
Weights of vit_base_r50_s16_224 are random, as are its 14,400 candidates: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

import cv2
import numpy as np
import torch

from ccakit.attributes import Attributes
from ccakit.show.switcher import Candidates, encode_png
from ccakit.show.widget import ConditionSwitcher

K, CANDIDATES, AIMS = 8, 14_400, {"demo": 50, "vit_base_r50_s16_224": 150}


def demo_switcher() -> ConditionSwitcher:
    """As in notebook 07."""
    from ccakit.commands.demo import open_demo
    from ccakit.show import pictures

    run = open_demo()
    return ConditionSwitcher.of_run(run, pictures.pick_images(run.split, 12))


def large_switcher() -> ConditionSwitcher:
    """vit_base_r50_s16_224 with random weights, photographs' size, FashionAI's number of candidates."""
    from ccakit.data.transform import ImageTransform
    from ccakit.models.registry import create_model

    model = create_model("cca-type2", trunk="vit_base_r50_s16_224", conditions=K, pretrained=False)
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (12, 12, 3), np.uint8) for _ in range(40)]
    photographs = [cv2.resize(each, (512, 512), interpolation=cv2.INTER_CUBIC) for each in small]
    embeddings = rng.standard_normal((CANDIDATES, K, model.embed_dim), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    candidates = Candidates(embeddings, lambda row: photographs[row % 40], np.arange(CANDIDATES) + 100)
    attributes = Attributes.numbered({f"attribute_{c}": 5 for c in range(K)})
    return ConditionSwitcher(model, photographs[:4], ImageTransform(), attributes, candidates=candidates)


def _forget_keys(engine, image: int) -> None:
    """Keep tokens of a picture in the place of K and V."""
    seen = engine._seen[image]
    with torch.inference_mode():
        tokens = engine.model.encode(engine.transform(engine.images[image])[None].to(engine.device))
    engine._seen[image] = seen._replace(tokens=tokens, keys_values=None)


def _seconds(switcher: ConditionSwitcher, condition: int) -> float:
    started = time.perf_counter()
    switcher.condition.value = condition
    return time.perf_counter() - started


def measure(switcher: ConditionSwitcher, switches: int, few: int = 10) -> dict:
    """p50 and p95 in ms of each way; the bytes of all three agree."""
    engine, rng = switcher.engine, np.random.default_rng(0)
    times: dict[str, list[float]] = {"switch": [], "from tokens": [], "from the picture": []}
    condition, worst, every = 0, 0, max(1, switches // few)
    for step in range(switches + 3):
        image = int(rng.integers(len(engine.images)))
        switcher.image = image  # encoded here, outside what is timed
        condition = int((switcher.condition.value + 1 + rng.integers(K - 1)) % K)
        before = switcher.condition.value
        taken = {"switch": _seconds(switcher, condition)}
        picture = switcher.picture.value
        if step % every == 0:
            for way in ("from tokens", "from the picture"):
                kept = engine._seen[image]
                switcher.condition.value = before
                if way == "from tokens":
                    _forget_keys(engine, image)
                else:
                    engine._seen.pop(image)
                taken[way] = _seconds(switcher, condition)
                worst = max(worst, _difference(picture, switcher.picture.value))
                engine._seen[image] = kept
        if step >= 3:  # the first ones warm up
            for way, seconds in taken.items():
                times[way].append(1000 * seconds)
    assert worst <= 1, f"the ways differ by {worst} of 255"
    shown = engine.draw(engine.look(0, 0))
    png = [_timed(lambda: encode_png(shown)) for _ in range(30)]
    rows = {
        way: {
            "p50": round(float(np.percentile(of, 50)), 1),
            "p95": round(float(np.percentile(of, 95)), 1),
            "n": len(of),
        }
        for way, of in times.items()
    }
    return {
        "switches": rows,
        "floor_png_ms": round(float(np.median(png)), 1),
        "picture": list(shown.shape[:2]),
        "candidates": len(engine.candidates.ids),
        "largest_difference": worst,
    }


def _timed(work) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _difference(a: bytes, b: bytes) -> int:
    """The largest difference of two pictures' pixels."""
    a, b = (cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR).astype(int) for each in (a, b))
    return int(np.abs(a - b).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=AIMS, help="one of the two models")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": options.threads,
        "load": round(os.getloadavg()[0], 2),
    }
    for name, build in (("demo", demo_switcher), ("vit_base_r50_s16_224", large_switcher)):
        if options.only in (None, name):
            report[name] = {**measure(build(), options.switches), "aim_p95": AIMS[name]}
    print(json.dumps(report, indent=2) if options.json else _table(report))


def _table(report: dict) -> str:
    lines = [
        f"{report['machine']}, {report['threads']} threads, load {report['load']}; ms from event to bytes"
    ]
    for name in AIMS.keys() & report.keys():
        of, aim = report[name], AIMS[name]
        lines.append(
            f"\n{name}: {of['picture'][0]} x {of['picture'][1]} pixels, {of['candidates']} candidates, "
            f"PNG alone {of['floor_png_ms']}, aim p95 < {aim}"
        )
        lines += [
            f"  {way:<18} p50 {row['p50']:7.1f}   p95 {row['p95']:7.1f}   (n={row['n']})"
            for way, row in of["switches"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
