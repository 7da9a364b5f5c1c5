"""The figures' common parts: runs and compared systems, sizes, writing, and boxes and arrows of diagrams.

Every script of this folder has `draw(...) -> Figure` (or `make(...) -> Sheet` for a table), which notebooks
call after `sys.path.insert(0, "../figures")`, and `main(argv)`, which writes PNG and PDF and returns their
paths.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ccakit.benchmark.runs import settings_digest
from ccakit.commands.demo import open_demo
from ccakit.data.split import SPLITS
from ccakit.evaluation.embedding import embed_images, rank
from ccakit.evaluation.provenance import data_facts
from ccakit.evaluation.run import Run, open_run, project_folder
from ccakit.settings import from_dict
from ccakit.show import style
from ccakit.training.config import EARLIER, TrainConfig
from ccakit.training.trainer import train

COLUMN, TEXT = 3.3, 7.0  # inches: one column, and the text's width
SMALL = 6.0  # points: the smallest type in a figure of that size
SHARED, SWITCHED = "#BFD9EE", "#F6C99B"  # boxes that are computed once an image; and again for each condition
ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = ROOT / "runs/benchmark/spaces/default"


def arguments(doc: str, argv: Sequence[str] | None, *flags: tuple[str, dict]) -> argparse.Namespace:
    """Parse the command line: --out, and the flags of the script."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs/figures", help="where PNG and PDF go")
    for name, options in flags:
        parser.add_argument(name, **options)
    return parser.parse_args(argv)


RUN = ("--run", dict(type=Path, default=None, help="a run folder; runs/demo, else a smoke run, by default"))
POINTS = ("--points", dict(type=int, default=150, help="images a space, for t-SNE"))
RUNS = ("--runs", dict(nargs="*", default=[], metavar="NAME=FOLDER", help="runs of compared systems"))


def write(figure: Figure, name: str, out: Path, *runs: Run) -> list[Path]:
    """Write NAME.png (300 dpi) and NAME.pdf (with real fonts) to `out`; print and return the paths.

    runs: those that the figure shows; what is to be known of their data is written under it.
    """
    style.remark(figure, [f"{run.title}: {text}" for run in runs for text in run.remarks])
    with plt.rc_context({"pdf.fonttype": 42}):
        paths = [style.save(figure, out / f"{name}.{kind}", dpi=300) for kind in ("png", "pdf")]
    print(*paths, sep="\n")
    return paths


def run_or_demo(folder: Path | None = None) -> Run:
    """Open a run on its test split: from a folder that `ccakit train` or `demo` wrote, else the demo's."""
    return open_demo() if folder is None else open_run(folder, splits=SPLITS)


def run_on(folder: Path, base: Run) -> Run:
    """Open a run on the test split of another one's data, with which it is compared."""
    return open_run(folder, data=base.dataset.root, splits=SPLITS)


def compared(
    names: Sequence[str],
    base: Run,
    given: Sequence[str] = (),
    folder: Path | None = None,
    benchmark: Path = BENCHMARK,
) -> list[Run]:
    """Open a run of each system on the data of `base`, all trained in the same way.

    given: "NAME=FOLDER", runs that are taken, on the data of `base`. The others are the benchmark's runs, if
    it has all of them on the same data; else `base` for its own system, and the rest are trained once for the
    settings and the data of `base`, by whose digest they are kept in `folder`.
    """
    folders = {name: Path(path) for name, path in (word.split("=", 1) for word in given)}
    kept = {name: benchmark / f"{name}-0" for name in names if name not in folders}
    if all(_is_of(path, base) for path in kept.values()):
        folders |= kept
    folder = folder or project_folder() / "runs/figures/systems"
    return [_run_of(name, base, folders.get(name), folder) for name in names]


def _is_of(path: Path, base: Run) -> bool:
    """Tell whether a folder holds a finished run on the same data."""
    if not ((path / "model.safetensors").exists() and (path / "data.json").exists()):
        return False
    return json.loads((path / "data.json").read_text("utf-8"))["digest"] == data_facts(base.dataset)["digest"]


def _run_of(name: str, base: Run, given: Path | None, folder: Path) -> Run:
    if given is not None:
        return run_on(given, base)
    if name == base.system:
        return base
    kept = json.loads((base.folder / "config.json").read_text("utf-8"))
    settings = from_dict(TrainConfig, {**EARLIER, **kept})
    settings = replace(settings, model=name, data=base.dataset.root)
    out = folder / f"{name}-{settings_digest(settings, base.dataset)}"
    if not (out / "train.json").exists():
        print(f"training {name} with the settings of {base.folder}, into {out}", flush=True)
        train(replace(settings, out=out, resume=(out / "config.json").exists()), quiet=True)
    return run_on(out, base)


def scores(run: Run) -> dict[str, float]:
    """Measure the mAP of every attribute on the test split, and "map_weighted", in percent."""
    metrics = run.metrics or rank(run.model, run.inputs).to_dict()
    return {**metrics["map_per_attribute"], "map_weighted": metrics["map_weighted"]}


def some_images(run: Run, points: int, seed: int = 0) -> list[np.ndarray]:
    """Draw, for every attribute, at most `points` test images that have a label of it."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(labels >= 0))[:points] for labels in run.split.label_matrix().T]


def in_spaces(run: Run, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Embed some images of each attribute in its own space: K arrays (n, E)."""
    unique = np.unique(np.concatenate(images))
    embeddings = embed_images(run.model, run.inputs, unique)
    return [embeddings[np.searchsorted(unique, part), c] for c, part in enumerate(images)]


def draw_space(
    ax: Axes, embeddings: np.ndarray, images: np.ndarray, run: Run, condition: int, size: float, seed: int
) -> None:
    """Draw a space of some images by t-SNE, coloured by the attribute's values, in a frame of its colour."""
    colors = np.array(style.value_colors(len(run.attributes.values[condition])))
    labels = run.split.label_matrix()[images, condition]
    (points,) = style.tsne(ax, [embeddings], [images], seed)
    ax.scatter(*points.T, s=size, c=colors[labels], linewidth=0)
    style.bare_axes(ax, style.attribute_colors(len(run.attributes))[condition])


def name_values(ax: Axes, values: Sequence[str], width: int = 15) -> None:
    """Name the values below an axes, in two columns, with their colours; only count more than 12."""
    if len(values) > 12:
        ax.set_xlabel(f"{len(values)} values")
        return
    handles = [
        ax.scatter([], [], s=12, color=color, linewidth=0, label=style.wrapped(value, width))
        for color, value in zip(style.value_colors(len(values)), values)
    ]
    spacing = dict(handletextpad=0, columnspacing=0.3, labelspacing=0.2, borderpad=0.2)
    below = dict(loc="upper center", bbox_to_anchor=(0.5, -0.005))
    ax.legend(handles=handles, ncols=2, frameon=False, **below, **spacing)


def lettering(size: float = SMALL):
    """Set type to `size` points, and titles to one more, in figures that are made within this context."""
    keys = ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    return plt.rc_context({**style.STYLE, **dict.fromkeys(keys, size), "axes.titlesize": size + 1})


class Canvas:
    """A diagram: coordinates are inches from the lower left corner; those of a box are its centre.

    formulas: text between "$" is mathematics.
    """

    def __init__(self, width: float, height: float, size: float = 7, formulas: bool = False) -> None:
        self.figure = style.new_figure(width, height, formulas, layout=None)
        self.ax = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.ax.set_axis_off()
        self.size = size

    def text(self, x: float, y: float, text: str, **options) -> None:
        self.ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": self.size, **options})

    def box(
        self, x: float, y: float, width: float, height: float, text: str = "", color: str = SHARED, **options
    ) -> None:
        self._rounded(x, y, width, height, 0.05, facecolor=color, edgecolor="0.25")
        self.text(x, y, text, **options)

    def area(self, x: float, y: float, width: float, height: float, text: str = "") -> None:
        """Draw a dashed frame around boxes, named at its upper edge."""
        dashes = (0, (4, 2))
        self._rounded(x, y, width, height, 0.08, facecolor="none", edgecolor="0.45", linestyle=dashes)
        self.text(x, y + height / 2 + 0.09, text, fontweight="bold")

    def _rounded(self, x: float, y: float, width: float, height: float, radius: float, **options) -> None:
        corner, shape = (x - width / 2, y - height / 2), f"round,pad=0,rounding_size={radius}"
        self.ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, linewidth=0.7, **options))

    def circle(self, x: float, y: float, radius: float, text: str, color: str = SWITCHED, **options) -> None:
        self.ax.add_patch(Circle((x, y), radius, facecolor=color, edgecolor="0.25", linewidth=0.7))
        self.text(x, y, text, **options)

    def arrow(self, *points: tuple[float, float], color: str = "0.2", head: bool = True) -> None:
        """Draw a line through points, with a head at the last."""
        for start, end in zip(points[:-2], points[1:-1]):
            self.ax.plot(*zip(start, end), color=color, linewidth=0.8, solid_capstyle="round")
        style = "-|>,head_length=2.6,head_width=1.5" if head else "-"
        exact = dict(shrinkA=0, shrinkB=0, mutation_scale=1)
        line = FancyArrowPatch(*points[-2:], arrowstyle=style, color=color, linewidth=0.8, **exact)
        self.ax.add_patch(line)

    def person(self, x: float, y: float, height: float) -> None:
        """Draw a garment, as a sign for a picture."""
        self.box(x, y, 0.8 * height, height, "", "white")
        self.ax.add_patch(Circle((x, y + 0.33 * height), 0.09 * height, facecolor="0.75", edgecolor="none"))
        half = [(0.1, 0.22), (0.3, -0.02), (0.22, -0.08), (0.1, 0.05), (0.22, -0.4)]
        outline = half + [(-dx, dy) for dx, dy in reversed(half)]
        corners = [(x + height * dx, y + height * dy) for dx, dy in outline]
        self.ax.fill(*zip(*corners), color=style.PALETTE[1], linewidth=0)
