"""The tables: what they hold, how they are drawn and written, and what Tables 2-4 share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shared
from matplotlib.figure import Figure

from ccakit.audit.paper import audit_paper
from ccakit.audit.tables import paper_rows
from ccakit.benchmark.results import PER_ATTRIBUTE, read_rows
from ccakit.benchmark.standings import mean_and_std, problems, standings
from ccakit.show import style


@dataclass
class Block:
    """A part of a table: its title, the columns' heads, rows of texts, and notes under it.

    A cell between ** is bold; `marked` holds the (row, column) of cells that contradict something, set in orange.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    marked: set[tuple[int, int]] = field(default_factory=set)

    def markdown(self) -> str:
        """The block for a Markdown file."""
        lines = [f"**{self.title}**", "", "| " + " | ".join(h.replace("\n", " ") for h in self.head) + " |"]
        lines.append("|" + "---|" * len(self.head))
        for i, row in enumerate(self.rows):
            cells = [f"{cell} (!)" if (i, j) in self.marked else cell for j, cell in enumerate(row)]
            lines.append(f"| {' | '.join(cells)} |")
        lines = lines if self.rows else lines[:1]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


@dataclass
class Sheet:
    """A table of the paper: blocks under each other, one kind of fact in each, never mixed."""

    title: str
    blocks: list[Block]

    def markdown(self) -> str:
        """The whole table for a Markdown file."""
        return "\n\n".join([f"### {self.title}", *(block.markdown().strip() for block in self.blocks)]) + "\n"


LINE, CELL = 0.135, 6.2  # inches a line, points a letter, of a table


def draw_sheet(sheet: Sheet) -> Figure:
    """The table at the text's width, as tall as it is long."""
    notes = [[shared.wrapped(note, 158) for note in block.notes] for block in sheet.blocks]
    heads = [
        max((head.count("\n") + 1 for head in block.head), default=0) if block.rows else 0
        for block in sheet.blocks
    ]
    lines = [
        (heads[i] + len(block.rows) + 3.05 if block.rows else 1.9) + sum(n.count("\n") + 1 for n in notes[i])
        for i, block in enumerate(sheet.blocks)
    ]
    height = LINE * (sum(lines) + 1.5)
    canvas = shared.Canvas(shared.TEXT, height, CELL)
    y = height - LINE
    canvas.text(0.05, y, sheet.title, ha="left", fontweight="bold", fontsize=8)
    for block, head, its_notes in zip(sheet.blocks, heads, notes):
        y = _draw_block(canvas, block, y - 1.5 * LINE, head, its_notes)
    return canvas.figure


def _draw_block(canvas: shared.Canvas, block: Block, y: float, head: int, notes: list[str]) -> float:
    """Draw a block from the height y down; returns where it ends."""
    canvas.text(0.05, y, block.title, ha="left", fontweight="bold", fontsize=6.8)
    if block.rows:
        places = _columns(canvas, block)
        _rule(canvas, y - 0.6 * LINE, 0.8, places[-1])
        for x, text, align in zip(places, block.head, ["left", *["right"] * len(places)]):
            canvas.text(x, y - (0.65 + head) * LINE, text, ha=align, va="baseline", linespacing=1.1)
        y -= (head + 0.95) * LINE
        _rule(canvas, y, 0.5, places[-1])
        for i, row in enumerate(block.rows):
            y -= LINE if i else 0.75 * LINE
            for j, (x, cell) in enumerate(zip(places, row)):
                color = style.ink(style.WRONG) if (i, j) in block.marked else "black"
                weight = "bold" if cell.startswith("**") else "normal"
                canvas.text(
                    x,
                    y - 0.25 * LINE,
                    cell.strip("*"),
                    ha="right" if j else "left",
                    va="baseline",
                    color=color,
                    fontweight=weight,
                )
        y -= 0.65 * LINE
        _rule(canvas, y, 0.8, places[-1])
        y += 0.2 * LINE
    for note in notes:
        count = note.count("\n") + 1
        canvas.text(0.05, y - 0.5 * LINE, note, ha="left", va="top", fontsize=shared.SMALL, linespacing=1.25)
        y -= count * LINE
    return y - 0.4 * LINE


def _rule(canvas: shared.Canvas, y: float, width: float, end: float) -> None:
    canvas.ax.plot([0.05, end], [y, y], color="black", linewidth=width, solid_capstyle="butt")


def _columns(canvas: shared.Canvas, block: Block) -> list[float]:
    """Where columns stand, by the widths of what they hold: the first from the left, the others' right edges."""

    def width(text: str) -> float:
        style = dict(fontsize=CELL, fontweight="bold" if text.startswith("**") else "normal")
        drawn = canvas.ax.text(0, 0, text.strip("*"), **style)
        size = drawn.get_window_extent().width / canvas.figure.dpi
        drawn.remove()
        return size

    widths = [max(map(width, column)) for column in zip(block.head, *block.rows)]
    gap = min(0.45, (shared.TEXT - 0.1 - sum(widths)) / max(1, len(widths) - 1))
    return [0.05, *(0.05 + np.cumsum(widths)[1:] + gap * np.arange(1, len(widths)))]


def write_sheet(sheet: Sheet, name: str, out: Path) -> list[Path]:
    """The table as PNG, PDF and Markdown."""
    paths = shared.write(draw_sheet(sheet), name, out)
    paths.append(out / f"{name}.md")
    paths[-1].write_text(sheet.markdown())
    print(paths[-1])
    return paths


RESULTS = ("--results", dict(type=Path, default=None, help="a results file of `ccakit benchmark`"))
DRAWN = {"garments": "drawn garments, with FashionAI's attributes", "fashion_mnist": "Fashion-MNIST"}


def about(dataset: str) -> str:
    """What a data set of ours is, in words."""
    return DRAWN.get(dataset, dataset)


def named(path: Path) -> str:
    """A path, from the project's folder if it lies there."""
    return str(path.relative_to(shared.ROOT) if path.is_relative_to(shared.ROOT) else path)


def results(file: Path) -> list[dict]:
    """The rows of a results file; none if it is not there."""
    return read_rows(file) if Path(file).exists() else []


def method(name: str, row: dict) -> str:
    """A method's name; a dagger where the paper says that the figures are its own reproduction."""
    return name + (" †" if row["reproduced_by_paper"] else "")


def bold(value: float, best: float) -> str:
    """A figure with two decimals, bold if it is the best."""
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def minus(text: str) -> str:
    """The text with real minus signs."""
    return re.sub(r"(?<![\w.])-(?=\d)|(?<= )-(?= )", "−", text)


def contradicted(dataset: str, table: str, audit: dict) -> list[str]:
    """What the paper says of a table that its figures contradict, a sentence each."""
    return [
        minus(f"Contradicted ({each['where']}): {each['says']}; {each['computed']}.")
        for each in audit["claims"]
        if not each["holds"]
        and (each["where"] == table or dataset in each["says"].split(":")[0].split(" on ")[-1])
        and each["where"] != "Table 1"
    ]


def map_table(dataset: str, file: Path, audit: dict | None = None) -> Sheet:
    """Table 2, 3 or 4: the paper's block, and a block a mode of our benchmark, each with its own data's name.

    The printed overall mAP stands beside the query-weighted and the plain mean of the row's own attributes; what is
    not the weighted one is marked. The random row stands over its exact expectation from the label counts.
    """
    audit = audit or audit_paper()
    printed = _printed(dataset, audit)
    number = next(row["table"] for row in audit["rows"] if row["dataset"] == dataset)
    return Sheet(f"{number}. mAP (%) on {dataset}", [printed, *_measured(dataset, Path(file))])


def _two_lines(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").replace(" ", "\n")


def _printed(dataset: str, audit: dict) -> Block:
    """The paper's rows, their recomputed means, and the random row's expectation."""
    paper, means = (
        paper_rows(dataset),
        {row["method"]: row for row in audit["rows"] if row["dataset"] == dataset},
    )
    attributes = list(next(iter(paper.values()))["per_attribute"])
    best = {name: max(row["per_attribute"][name] for row in paper.values()) for name in attributes}
    top, rows, marked = max(row["mAP"] for row in paper.values()), [], set()
    for name, row in paper.items():
        mean = means[name]
        if not mean["fits"]:
            marked.add((len(rows), 2))
        rows.append(
            [
                method(name, row),
                row["backbone"],
                bold(row["mAP"], top),
                f"{mean['map_weighted']:.2f}",
                f"{mean['map_macro']:.2f}",
                *(bold(row["per_attribute"][a], best[a]) for a in attributes),
            ]
        )
        if name == "Random baseline":
            rows.append(_expected(audit["random"][dataset], attributes))
    head = ["method", "trunk", "mAP\n(printed)", "weighted", "plain", *map(_two_lines, attributes)]
    return Block(
        "The paper's figures, and their means recomputed", head, rows, _notes(dataset, audit, means), marked
    )


def _expected(random: dict, attributes: list[str]) -> list[str]:
    each = [random["per_attribute"][name]["expected"] for name in attributes]
    weighted = f"{random['overall']['expected']:.2f}"
    return [
        "  expected, exactly",
        "–",
        weighted,
        weighted,
        f"{np.mean(each):.2f}",
        *(f"{v:.2f}" for v in each),
    ]


def _notes(dataset: str, audit: dict, means: dict) -> list[str]:
    wrong = [
        f"{name} {row['printed']:.2f} ({_is(row['is'])})" for name, row in means.items() if not row["fits"]
    ]
    notes = [
        "weighted, plain: the means of the row's own attributes, by the test split's queries and as they are. "
        "Bold: the best. †: the paper's own reproduction."
    ]
    if wrong:
        notes.append(
            f"In orange, or (!): printed overall figures that are not the weighted mean: {', '.join(wrong)}."
        )
    ceiling = audit["ceilings"][dataset]
    if ceiling["unanswered"]:
        notes.append(
            f"{ceiling['unanswered']} of {ceiling['queries']:,} queries have no relevant candidate: the most "
            f"that the weighted mAP can be is {ceiling['map_weighted']:.2f}."
        )
    return notes + contradicted(dataset, means[next(iter(means))]["table"], audit)


def _is(kind: str) -> str:
    repeats = f"it repeats {kind.replace('_', ' ')}"
    return {"map_macro": "it is the plain mean", "neither": "it is neither mean"}.get(kind, repeats)


def _measured(dataset: str, file: Path) -> list[Block]:
    """Our benchmark: a block a mode, systems in the order of the paper's rows."""
    rows = [row for row in results(file) if not row.get("variant")]
    if not rows:
        missing = f"Nothing is measured here yet: {named(file)} is not there, or holds no rows (`ccakit benchmark`)."
        return [Block(f"Our benchmark (not {dataset})", [], [], [missing])]
    lines = standings(rows)
    return [
        _mode(dataset, mode, [line for line in lines if line["mode"] == mode])
        for mode in dict.fromkeys(line["mode"] for line in lines)
    ]


def _mode(dataset: str, mode: str, lines: list[dict]) -> Block:
    """Means over seeds, ± the standard deviation of the overall figures; the best but for the K networks in bold."""
    first, attributes = lines[0]["rows"][0], [n for n in lines[0]["mean"] if n.startswith(PER_ATTRIBUTE)]
    single = [line for line in lines if line["model"] != "networks"] or lines
    columns = ["map_weighted", "map_macro", *attributes]
    best = {name: np.nanmax([line["mean"][name] for line in single]) for name in columns}
    rows = [
        [line["model"], str(line["seeds"]), *(_mean(line, name, best) for name in columns)] for line in lines
    ]
    chance = first["random_map_weighted"]
    rows.insert(0, ["random ranking", "–", f"{chance:.1f}", *["–"] * (len(columns) - 1)])
    notes = [f"{line['model']}: {problems(line)}." for line in lines if problems(line)]
    notes.append(
        f"Means over seeds, ± standard deviation. Budget {first['budget']}, trunk {first['trunk']}. Bold: the "
        f"best single network; `networks` are {len(attributes)} of them."
    )
    head = [
        "system",
        "seeds",
        "mAP\nweighted",
        "mAP\nplain",
        *(_two_lines(name.removeprefix(PER_ATTRIBUTE)) for name in attributes),
    ]
    title = f"Our benchmark on {about(first['dataset'])} (not {dataset}), trained in mode {mode}"
    return Block(title, head, rows, notes)


def _mean(line: dict, name: str, best: dict) -> str:
    text = mean_and_std(line, name) if name.startswith("map_") else f"{line['mean'][name]:.1f}"
    bolded = line["model"] != "networks" and line["mean"][name] == best[name]
    return f"**{text}**" if bolded else text.replace("nan", "–")
