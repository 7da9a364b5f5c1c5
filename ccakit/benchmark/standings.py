"""The benchmark's tables: means and spreads over seeds, in the order of the paper's rows, its figures beside them."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from ccakit.audit.tables import _plain, paper_rows
from ccakit.benchmark.results import PER_ATTRIBUTE, at_chance
from ccakit.models.registry import list_models, reads_on
from ccakit.models.trunks.lite import LITE

GREY, RESET = "\033[90m", "\033[0m"
TITLES = {info.name: info.title for info in list_models()}
OVERALL = {"map_weighted": "weighted mAP", "map_macro": "macro mAP", "triplet_accuracy": "triplet accuracy"}
PRINTED = {"map_weighted": "mAP", "triplet_accuracy": "accuracy"}  # what the paper has of them, by its name
LEFT = ("system", "")  # columns of words


class Paper(str):
    """A figure of the paper, which a terminal shows in grey."""


def standings(rows: list[dict]) -> list[dict]:
    """A line a (mode, variant, model): means and standard deviations over its finished seeds, and what became of them.

    `mean` and `std` hold map_weighted, map_macro, triplet_accuracy and each map:NAME; std is NaN for one seed.
    """
    order = {info.name: place for place, info in enumerate(list_models())}
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["mode"], row.get("variant") or "", row["model"]), []).append(row)
    lines = []
    for (mode, variant, model), of in groups.items():
        done = [row for row in of if row.get("map_weighted") is not None]
        names = [
            n
            for n in dict.fromkeys(n for row in of for n in row)  # a row that failed has no figures
            if n in OVERALL or n.startswith(PER_ATTRIBUTE)
        ]
        values = {n: np.array([row[n] for row in done if row.get(n) is not None], float) for n in names}
        lines.append(
            {
                "mode": mode,
                "variant": variant,
                "model": model,
                "seeds": len(done),
                "rows": of,
                "mean": {n: float(v.mean()) if len(v) else float("nan") for n, v in values.items()},
                "std": {n: float(v.std(ddof=1)) if len(v) > 1 else float("nan") for n, v in values.items()},
                "collapsed": sum(row["status"] == "collapsed" for row in of),
                "at_chance": sum(row["status"] != "collapsed" and at_chance(row) for row in of),
                "failed": [row["status"] for row in of if str(row["status"]).startswith("failed")],
            }
        )
    modes = list(dict.fromkeys(line["mode"] for line in lines))
    variants = list(dict.fromkeys(line["variant"] for line in lines))
    return sorted(
        lines, key=lambda l: (modes.index(l["mode"]), variants.index(l["variant"]), order[l["model"]])
    )


def told(line: dict) -> str:
    """What went wrong in a line's runs, in words; empty where all went well."""
    counts = {"collapsed": line["collapsed"], "at chance": line["at_chance"]}
    parts = [f"{count} of {len(line['rows'])} {what}" for what, count in counts.items() if count]
    return "; ".join([*parts, *line["failed"][:1]])


def spread(line: dict, name: str) -> str:
    """mean ± standard deviation of a figure, or the one value, or a dash."""
    mean, std = line["mean"].get(name, float("nan")), line["std"].get(name, float("nan"))
    if np.isnan(mean):
        return "-"
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def papers_row(line: dict) -> dict:
    """The paper's row of a line's system; empty where there is none, or where the system is here another than the
    paper's, whose triplet network is a CNN."""
    trunk = line["rows"][-1].get("trunk", LITE)
    if starred([line]) or (line["model"] == "triplet" and reads_on("triplet", trunk) != "map"):
        return {}
    return paper_rows(line["rows"][0].get("dataset", "")).get(TITLES[line["model"]], {})


def starred(lines: list[dict]) -> dict[str, str]:
    """Systems that are here something else than their name says, and what: they share a trunk that theirs does not."""
    shared = {line["model"] for line in lines if any(row.get("shares_trunk") for row in line["rows"])}
    return {
        info.name: info.if_shared for info in list_models() if info.name in shared and not info.shares_trunk
    }


def text_table(rows: list[dict], color: bool = False) -> str:
    """The benchmark for a terminal: a block a mode and variant, in which overall figures and costs come first, then the
    attributes. The paper's figures are grey, beside ours or under them."""
    if not rows:
        return "no runs"
    lines, out = standings(rows), []
    for (mode, variant), block in groupby(lines, lambda line: (line["mode"], line["variant"])):
        of = list(block)
        out.append(", ".join(filter(None, (rows[0]["dataset"], f"mode {mode}", variant))))
        out += [*_aligned(_overall(of), color), "", *_aligned(_attributes(of), color), ""]
    return "\n".join([*out, *_foot(rows, lines)]).rstrip()


def _foot(rows: list[dict], lines: list[dict]) -> list[str]:
    """What is to be known of all blocks: stars, unreadable images, what a random ranking scores."""
    foot = [f"* {name}: {what}" for name, what in starred(lines).items()]
    if unreadable := max(row.get("unreadable") or 0 for row in rows):
        foot.append(f"unreadable images, replaced in training and left out of test: up to {unreadable} a run")
    chance = next((row["random_map_weighted"] for row in rows if row.get("random_map_weighted")), None)
    return foot + ([f"random ranking: weighted mAP {chance:.2f}"] if chance else [])


def _name(line: dict) -> str:
    return line["model"] + ("*" if starred([line]) else "")


def _overall(lines: list[dict]) -> list[list[str]]:
    """Overall figures, the paper's beside them, costs, and what went wrong; columns that hold nothing are left out."""
    measured = [name for name in OVERALL if any(spread(line, name) != "-" for line in lines)] or [
        "map_weighted"
    ]
    table = [["system"]]
    for name in measured:
        table[0] += [OVERALL[name], "paper"] if name in PRINTED else [OVERALL[name]]
    table[0] += ["parameters", "embedding", "training", ""]
    for line in lines:
        cells, theirs, row = [_name(line)], papers_row(line), line["rows"][-1]
        for name in measured:
            cells.append(spread(line, name))
            cells += [_printed(theirs.get(PRINTED[name]))] if name in PRINTED else []
        table.append([*cells, _number(row, "parameters", ""), *_costs(row, 2), told(line)])
    return _filled(table)


def _attributes(lines: list[dict]) -> list[list[str]]:
    """mAP of each attribute, and the paper's in a row of its own under ours."""
    names = list(dict.fromkeys(n for line in lines for n in line["mean"] if n.startswith(PER_ATTRIBUTE)))
    table = [["system", *(n.removeprefix(PER_ATTRIBUTE).replace("_", " ") for n in names)]]
    for line in lines:
        table.append([_name(line), *(spread(line, n) for n in names)])
        theirs = {_plain(n): value for n, value in papers_row(line).get("per_attribute", {}).items()}
        if theirs:
            printed = (_printed(theirs.get(_plain(n.removeprefix(PER_ATTRIBUTE)))) for n in names)
            table.append([Paper("  paper"), *printed])
    return table if names else []


def _printed(value: float | None) -> Paper:
    return Paper("" if value is None else f"{value:.2f}")


def _number(row: dict, name: str, unit: str, digits: int = 0) -> str:
    return f"{row[name]:,.{digits}f}{unit}" if row.get(name) is not None else ""


def _costs(row: dict, digits: int) -> list[str]:
    """What a system costs, where it was measured: an image's K embeddings, and training."""
    return [_number(row, "embed_ms", " ms", digits), _number(row, "images_per_second", " images/s")]


def _filled(table: list[list[str]]) -> list[list[str]]:
    """The table without columns that hold nothing under their heads."""
    columns = [column for column in zip(*table) if any(column[1:])]
    return [list(row) for row in zip(*columns)]


def _aligned(table: list[list[str]], color: bool) -> list[str]:
    """The table as lines: words to the left, figures to the right, the paper's grey if `color`."""
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = []
    for row in table:
        cells = [
            f"{cell:<{w}}" if head in LEFT else f"{cell:>{w}}" for cell, w, head in zip(row, widths, table[0])
        ]
        grey = [
            f"{GREY}{text}{RESET}" if color and isinstance(cell, Paper) else text
            for cell, text in zip(row, cells)
        ]
        lines.append("  ".join(grey).rstrip())
    return lines


def markdown(rows: list[dict]) -> str:
    """The weighted mAP of every system in each mode, for the README: a line a system. Beside it are the paper's figures
    where the data set is the paper's, and triplet accuracy and costs where measured; under it, what is starred."""
    lines = standings([row for row in rows if not row.get("variant")])
    modes, stars = sorted({line["mode"] for line in lines}), starred(lines)
    table = [
        [
            "system",
            *(_mode_head(mode, lines) for mode in modes),
            "paper",
            *(f"`{mode}`, triplet accuracy" for mode in modes),
            "paper",
            "trained parameters",
            "embedding, all K spaces",
            "training",
        ]
    ]
    for model in dict.fromkeys(line["model"] for line in sorted(lines, key=lambda l: l["mode"])):
        of = {line["mode"]: line for line in lines if line["model"] == model}
        first = next(iter(of.values()))
        row, theirs = first["rows"][-1], papers_row(first)
        cells = [f"`{model}`" + (r" \*" if model in stars else "")]
        for cell_of, printed in ((_cell, "mAP"), (_accuracy, "accuracy")):
            cells += [cell_of(of[mode]) if mode in of else "" for mode in modes] + [
                _printed(theirs.get(printed))
            ]
        table.append([*cells, _number(row, "trained_parameters", ""), *_costs(row, 1)])
    head, *body = (f"| {' | '.join(cells)} |" for cells in _filled(table))
    notes = [line for name, what in stars.items() for line in ("", rf"\* `{name}`: {what}")]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *body, *notes])


def ablations_markdown(rows: list[dict]) -> str:
    """Weighted mAP of every variant, for the README, and its distance from the system as it is, where that was run."""
    blocks: dict[tuple, list[dict]] = {}
    for line in standings(rows):
        blocks.setdefault((line["mode"], line["model"]), []).append(line)
    head = ["mode", "system", "changed", "weighted mAP", "", "seeds", "trained parameters"]
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (mode, model), lines in blocks.items():
        plain = next((line["mean"]["map_weighted"] for line in lines if not line["variant"]), float("nan"))
        for line in lines:
            setting, gain = f"`{line['variant']}`", line["mean"]["map_weighted"] - plain
            told = "" if np.isnan(gain) else f"{gain:+.1f}"
            changed = [setting, _cell(line), told] if line["variant"] else ["nothing", _cell(line), ""]
            trained = line["rows"][-1].get("trained_parameters")
            cells = [
                f"`{mode}`",
                f"`{model}`",
                *changed,
                str(line["seeds"]),
                f"{trained:,.0f}" if trained else "",
            ]
            table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table)


def _mode_head(mode: str, lines: list[dict]) -> str:
    """A mode with the budget of its runs and how many seeds each system has: "`spaces`, epochs=10, 3 seeds"."""
    of = [line for line in lines if line["mode"] == mode]
    budgets = sorted({str(row["budget"]) for line in of for row in line["rows"] if row.get("budget")})
    seeds = sorted({line["seeds"] for line in of})
    told = (
        f"{seeds[0]} seed"
        if seeds == [1]
        else f"{'-'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    )
    return ", ".join([f"`{mode}`", *budgets, told])


def _cell(line: dict) -> str:
    wrong = told(line)
    return spread(line, "map_weighted") + (f" ({wrong})" if wrong else "")


def _accuracy(line: dict) -> str:
    text = spread(line, "triplet_accuracy")
    return "" if text == "-" else text
