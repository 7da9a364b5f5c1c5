"""The condition switcher: milliseconds from the event to the bytes of the new picture, neighbours included.

    python -m benchmarks.switcher              # the model of runs/demo (else a smoke run), and a large one
    python -m benchmarks.switcher --json --switches 500

A switch sets the condition of the widget, as a click does. It takes until the PNG bytes of the picture, the
thumbnails of the five neighbours and all texts are set. The thumbnail of a neighbour that was never shown is
made on the way. Two rows stand beside it, on the same pictures, in turns with it: `from tokens` computes K
and V again at each switch, and `from the picture` encodes the picture at each switch. All three must give the
same bytes. (A pixel of the heat may be rounded in another way: by at most 1 of 255.)

The floor of a switch is its PNG: zlib over 256 x 256 x 3 bytes (480 x 480 for the large model). The rest is
one row of the last block, the upsampling and colours of the heat, the products for the neighbours, and the
messages of the widgets. The weights of vit_base_r50_s16_224 and its 14,400 candidates are random: the time
does not depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from benchmarks.common import Disagreement, Row, alternate, begin, make_parser, report
from ccakit.attributes import Attributes
from ccakit.show.switcher import Candidates, encode_png
from ccakit.show.widget import ConditionSwitcher

CLAIMS = {"demo: switch, p95": "<= 50", "vit_base_r50_s16_224: switch, p95": "<= 150"}
K, CANDIDATES = 8, 14_400
WARM = 3  # switches that are not counted
FEW = 10  # switches that are also measured from tokens and from the picture


def demo_switcher() -> ConditionSwitcher:
    """Build the switcher of notebook 07."""
    from ccakit.commands.demo import open_demo
    from ccakit.show import pictures

    run = open_demo()
    return ConditionSwitcher.of_run(run, pictures.pick_images(run.split, 12))


def random_switcher(trunk: str = "vit_base_r50_s16_224", count: int = CANDIDATES) -> ConditionSwitcher:
    """Build a switcher of random weights and photographs' size, by default with FashionAI's number of
    candidates."""
    from ccakit.data.transform import ImageTransform
    from ccakit.models.registry import create_model

    transform = ImageTransform()
    model = create_model(
        "cca-type2", trunk=trunk, conditions=K, pretrained=False, image_size=transform.size[0]
    )
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (12, 12, 3), np.uint8) for _ in range(40)]
    photographs = [cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC) for image in small]
    embeddings = rng.standard_normal((count, K, model.embed_dim), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    candidates = Candidates(embeddings, lambda row: photographs[row % 40], np.arange(count) + 100)
    attributes = Attributes.numbered({f"attribute_{c}": 5 for c in range(K)})
    return ConditionSwitcher(model, photographs[:4], transform, attributes, candidates=candidates)


SWITCHERS = {"demo": demo_switcher, "vit_base_r50_s16_224": random_switcher}


@contextmanager
def from_tokens(engine, image: int) -> Iterator[None]:
    """Switch from the tokens of a picture, instead of K and V."""
    encoded, kept = engine.encoded, engine.encoded(image)
    with torch.inference_mode():
        tokens = engine.model.encode(engine.transform(engine.images[image])[None].to(engine.device))
    engine.encoded = lambda image: kept._replace(tokens=tokens, keys_values=None)
    yield
    engine.encoded = encoded


@contextmanager
def from_the_picture(engine, image: int) -> Iterator[None]:
    """Switch with nothing kept."""
    engine.encoded.cache_clear()
    yield


WAYS = {"from tokens": from_tokens, "from the picture": from_the_picture}


def measure(switcher: ConditionSwitcher, switches: int) -> tuple[dict[str, list[float]], int]:
    """Time `switches` switches: the milliseconds of each way, and the largest difference of their pictures.

    Disagreement where that is more than 1 of 255.
    """
    engine, rng = switcher.engine, np.random.default_rng(0)
    times: dict[str, list[float]] = {way: [] for way in ("switch", *WAYS)}
    largest = 0
    for step in range(switches + WARM):
        image = int(rng.integers(len(engine.images)))
        switcher.image = image  # encodes the picture, which is not timed
        before = switcher.condition.value
        condition = int((before + 1 + rng.integers(K - 1)) % K)
        taken = {"switch": switch(switcher, condition)}
        picture = switcher.picture.value
        if step % max(1, switches // FEW) == 0:
            for way, begin_way in WAYS.items():
                switch(switcher, before)
                with begin_way(engine, image):
                    taken[way] = switch(switcher, condition)
                largest = max(largest, difference(picture, switcher.picture.value))
        if step >= WARM:
            for way, spent in taken.items():
                times[way].append(spent)
    if largest > 1:
        raise Disagreement(f"the ways differ by {largest} of 255")
    return times, largest


def switch(switcher: ConditionSwitcher, condition: int) -> float:
    """Set the condition, as a click does, and give the milliseconds that it takes."""
    started = time.perf_counter()
    switcher.condition.value = condition
    return 1000 * (time.perf_counter() - started)


def difference(a: bytes, b: bytes) -> int:
    """Give the largest difference of two PNGs' pixels."""
    a, b = (cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int) for png in (a, b))
    return int(np.abs(a - b).max())


def rows_of(name: str, switcher: ConditionSwitcher, switches: int) -> list[Row]:
    """Measure one switcher: a row for each way."""
    times, largest = measure(switcher, switches)
    engine = switcher.engine
    shown = engine.draw(engine.look(0, 0))
    png = 1000 * alternate({"png": lambda: encode_png(shown)}, rounds=30)["png"]
    height, width = shown.shape[:2]
    about = f"{height} x {width} pixels, {len(engine.candidates.ids)} candidates"
    rows = []
    for way, spent in times.items():
        p50, p95 = np.percentile(spent, [50, 95]).round(1).tolist()
        note = f"p50 {p50} ms of {len(spent)}; floor: the PNG alone; {about}; {largest} of 255 apart"
        rows.append(Row(f"{name}: {way}, p95", p95, "ms", floor=round(png, 1), note=note))
    return rows


def main(argv: list[str] | None = None) -> dict:
    parser = make_parser(__doc__)
    parser.add_argument("--switches", type=int, help="switches of each model (default 200, quick 20)")
    parser.add_argument("--only", choices=SWITCHERS, help="one of the two models")
    options = begin(parser, argv)
    torch.manual_seed(0)
    switches = options.switches or (20 if options.quick else 200)
    rows = []
    for name, build in SWITCHERS.items():
        if options.only in (None, name):
            rows += rows_of(name, build(), switches)
    return report("switcher", rows, CLAIMS, options)


if __name__ == "__main__":
    main()
