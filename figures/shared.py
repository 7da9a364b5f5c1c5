"""What the figures share: which run they draw, compared systems, sizes, writing, and boxes and arrows of diagrams.

Every script of this folder has `draw(...) -> Figure` (or `make(...) -> Sheet` for a table), which notebooks call after
`sys.path.insert(0, "../figures")`, and `main(argv)`, which writes PNG and PDF and returns their paths.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ccakit.commands.demo import open_demo
from ccakit.data.split import SPLITS
from ccakit.evaluation.embedding import embed_images, rank
from ccakit.evaluation.run import Run, open_run, project_folder
from ccakit.models.registry import model_info
from ccakit.settings import from_dict
from ccakit.show import style
from ccakit.training.config import TrainConfig
from ccakit.training.run_folder import data_facts
from ccakit.training.trainer import train

COLUMN, TEXT = 3.3, 7.0  # inches: one column, and the text's width
SMALL = 6.0  # points: the least that is set in a figure of that size
IMAGE, SHARED, SWITCHED = (
    "#DDDDDD",
    "#BFD9EE",
    "#F6C99B",
)  # of boxes: data; once an image; anew for each condition
ROOT = Path(__file__).resolve().parent.parent
BENCHMARK = ROOT / "runs/benchmark/spaces/default"


def arguments(doc: str, argv: Sequence[str] | None, *flags: tuple[str, dict]) -> argparse.Namespace:
    """The command line: --out for all, and what the script adds."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs/figures", help="where PNG and PDF go")
    for name, options in flags:
        parser.add_argument(name, **options)
    return parser.parse_args(argv)


RUN = ("--run", dict(type=Path, default=None, help="a run folder; runs/demo, else a smoke run, by default"))
POINTS = ("--points", dict(type=int, default=150, help="images a space, for t-SNE"))
RUNS = ("--runs", dict(nargs="*", default=[], metavar="NAME=FOLDER", help="runs of compared systems"))


def write(figure: Figure, name: str, out: Path) -> list[Path]:
    """NAME.png (300 dpi) and NAME.pdf (with real fonts) in `out`; prints and returns the paths."""
    with plt.rc_context({"pdf.fonttype": 42}):
        paths = [style.save(figure, out / f"{name}.{kind}", dpi=300) for kind in ("png", "pdf")]
    print(*paths, sep="\n")
    return paths


def run_or_demo(folder: Path | None = None) -> Run:
    """A run on its test split: of a folder that `ccakit train` or `demo` wrote, else the demo's."""
    return open_demo() if folder is None else open_run(folder, splits=SPLITS)


def title_of(run: Run) -> str:
    """The system of a run, as the paper's tables have it."""
    return model_info(run.system).title


def compared(
    names: Sequence[str],
    base: Run,
    given: Sequence[str] = (),
    folder: Path | None = None,
    benchmark: Path = BENCHMARK,
) -> list[Run]:
    """A run of each system on the data of `base`, all trained alike.

    given: "NAME=FOLDER", taken as they are. The others: the benchmark's runs, if it has all of them on this very data;
    else `base` for its own system, and the rest trained with the settings of `base` into `folder`, once.
    """
    folders = {name: Path(path) for name, path in (word.split("=", 1) for word in given)}
    kept = {name: benchmark / f"{name}-0" for name in names if name not in folders}
    if all(_is_of(path, base) for path in kept.values()):
        folders |= kept
    folder = folder or project_folder() / "runs/figures/systems" / base.folder.name
    return [_run_of(name, base, folders.get(name), folder) for name in names]


def _is_of(path: Path, base: Run) -> bool:
    """Whether a finished run of the same data is there."""
    if not ((path / "model.safetensors").exists() and (path / "data.json").exists()):
        return False
    return json.loads((path / "data.json").read_text())["digest"] == data_facts(base.dataset)["digest"]


def _run_of(name: str, base: Run, there: Path | None, folder: Path) -> Run:
    if there is None and name == base.system:
        return base
    if there is None:
        there = folder / name
        if not (there / "train.json").exists():
            print(f"training {name} as {base.folder} was, into {there}", flush=True)
            settings = from_dict(TrainConfig, json.loads((base.folder / "config.json").read_text()))
            begun = (there / "config.json").exists()
            train(replace(settings, model=name, out=there, data=base.dataset.root, resume=begun), quiet=True)
    return run_or_demo(there)


def scores(run: Run) -> dict[str, float]:
    """mAP in percent of every attribute on the test split, and "map_weighted"."""
    metrics = run.metrics or rank(run.model, run.inputs).to_dict()
    return {**metrics["map_per_attribute"], "map_weighted": metrics["map_weighted"]}


def some_images(run: Run, points: int, seed: int = 0) -> list[np.ndarray]:
    """For every attribute, at most `points` test images that have a label of it, drawn by seed."""
    labels, rng = run.split.label_matrix(), np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(of >= 0))[:points] for of in labels.T]


def in_spaces(run: Run, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The embeddings of some images of each attribute in its own space: K arrays (n, E)."""
    every, place = np.unique(np.concatenate(images), return_inverse=True)
    embeddings = embed_images(run.saved.model, run.inputs, every)
    parts = np.split(place, np.cumsum([len(of) for of in images])[:-1])
    return [embeddings[part, condition] for condition, part in enumerate(parts)]


def scatter_values(
    ax: Axes, places: np.ndarray, labels: np.ndarray, values: Sequence[str], size: float = 4
) -> None:
    """Points coloured by value."""
    colors = style.value_colors(len(values))
    ax.scatter(*places.T, s=size, c=[colors[label] for label in labels], linewidth=0)


def name_values(ax: Axes, values: Sequence[str], width: int = 15) -> None:
    """The values' colours and names below an axes, in two columns; of more than 12 values the number alone."""
    if len(values) > 12:
        ax.set_xlabel(f"{len(values)} values")
        return
    handles = [
        ax.scatter([], [], s=12, color=color, linewidth=0, label=wrapped(value, width))
        for color, value in zip(style.value_colors(len(values)), values)
    ]
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.005),
        ncols=2,
        frameon=False,
        handletextpad=0,
        columnspacing=0.3,
        labelspacing=0.2,
        borderpad=0.2,
    )


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most `width` letters, but for longer words."""
    return textwrap.fill(text, width, break_long_words=False)


def lettering(size: float = SMALL, **more) -> dict:
    """The style of `plots`, with text of `size` points, one more for titles."""
    keys = ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    return {**style.STYLE, **dict.fromkeys(keys, size), "axes.titlesize": size + 1, **more}


class Canvas:
    """A diagram: places in inches from the lower left corner; boxes are placed by their centre."""

    def __init__(self, width: float, height: float, size: float = 7) -> None:
        self.figure = plt.figure(figsize=(width, height))
        plt.close(self.figure)
        self.ax = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        self.ax.set_axis_off()
        self.size = size

    def text(self, x: float, y: float, text: str, **options) -> None:
        self.ax.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": self.size, **options})

    def box(
        self, x: float, y: float, width: float, height: float, text: str = "", color: str = SHARED, **options
    ) -> None:
        shape = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            facecolor=color,
            edgecolor="0.25",
            linewidth=0.7,
            boxstyle="round,pad=0,rounding_size=0.05",
        )
        self.ax.add_patch(shape)
        self.text(x, y, text, **options)

    def area(self, x: float, y: float, width: float, height: float, text: str = "") -> None:
        """A dashed frame around boxes, named at its upper edge."""
        self.ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                facecolor="none",
                edgecolor="0.45",
                linewidth=0.7,
                linestyle=(0, (4, 2)),
                boxstyle="round,pad=0,rounding_size=0.08",
            )
        )
        self.text(x, y + height / 2 + 0.09, text, fontweight="bold")

    def circle(self, x: float, y: float, radius: float, text: str, color: str = SWITCHED, **options) -> None:
        self.ax.add_patch(Circle((x, y), radius, facecolor=color, edgecolor="0.25", linewidth=0.7))
        self.text(x, y, text, **options)

    def arrow(self, *points: tuple[float, float], color: str = "0.2", head: bool = True) -> None:
        """A line through points, with a head at the last."""
        for start, end in zip(points[:-2], points[1:-1]):
            self.ax.plot(*zip(start, end), color=color, linewidth=0.8, solid_capstyle="round")
        style = "-|>,head_length=2.6,head_width=1.5" if head else "-"
        self.ax.add_patch(
            FancyArrowPatch(
                points[-2],
                points[-1],
                arrowstyle=style,
                color=color,
                linewidth=0.8,
                shrinkA=0,
                shrinkB=0,
                mutation_scale=1,
            )
        )

    def person(self, x: float, y: float, height: float) -> None:
        """A garment, as a picture's stand-in."""
        box, s = self.box, height
        box(x, y, 0.8 * s, s, "", "white")
        self.ax.add_patch(Circle((x, y + 0.33 * s), 0.09 * s, facecolor="0.75", edgecolor="none"))
        shape = [
            (-0.1, 0.22),
            (0.1, 0.22),
            (0.3, -0.02),
            (0.22, -0.08),
            (0.1, 0.05),
            (0.22, -0.4),
            (-0.22, -0.4),
            (-0.1, 0.05),
            (-0.22, -0.08),
            (-0.3, -0.02),
        ]
        self.ax.fill(*zip(*((x + s * a, y + s * b) for a, b in shape)), color=style.PALETTE[1], linewidth=0)
