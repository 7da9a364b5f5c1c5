"""The benchmark's tables: means and spreads over seeds, in the order of the paper's rows, its figures beside them."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np

from ccakit.benchmark import PER_ATTRIBUTE
from ccakit.models import list_models

GREY, RESET = "\033[90m", "\033[0m"
TITLES = {info.name: info.title for info in list_models()}


def paper_rows(dataset: str) -> dict[str, dict]:
    """The rows of the paper's table on a data set, by title; none where the data set is not the paper's."""
    tables = json.loads(files("ccakit").joinpath("paper.json").read_text())
    return tables.get(dataset, {}).get("rows", {}) if dataset != "statistics" else {}


def standings(rows: list[dict]) -> list[dict]:
    """A line a (mode, variant, model): means and standard deviations over its finished seeds, and what became of them.

    `mean` and `std` hold map_weighted, map_macro and each map:NAME; std is NaN for one seed.
    """
    order = {info.name: place for place, info in enumerate(list_models())}
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["mode"], row.get("variant") or "", row["model"]), []).append(row)
    lines = []
    for (mode, variant, model), of in groups.items():
        done = [row for row in of if row.get("map_weighted") is not None]
        names = [n for n in dict.fromkeys(n for row in of for n in row)  # a row that failed has no figures
                 if n in ("map_weighted", "map_macro") or n.startswith(PER_ATTRIBUTE)]  # fmt: skip
        values = {n: np.array([row[n] for row in done if row.get(n) is not None], float) for n in names}
        lines.append({
            "mode": mode, "variant": variant, "model": model, "seeds": len(done), "rows": of,
            "mean": {n: float(v.mean()) if len(v) else float("nan") for n, v in values.items()},
            "std": {n: float(v.std(ddof=1)) if len(v) > 1 else float("nan") for n, v in values.items()},
            "collapsed": sum(row["status"] == "collapsed" for row in of),
            "failed": [row["status"] for row in of if str(row["status"]).startswith("failed")],
        })  # fmt: skip
    modes = list(dict.fromkeys(line["mode"] for line in lines))
    variants = list(dict.fromkeys(line["variant"] for line in lines))
    return sorted(lines, key=lambda l: (modes.index(l["mode"]), variants.index(l["variant"]), order[l["model"]]))


def told(line: dict) -> str:
    """What went wrong in a line's runs, in words; empty where all went well."""
    parts = [f"{line['collapsed']} of {len(line['rows'])} collapsed"] if line["collapsed"] else []
    return "; ".join([*parts, *line["failed"][:1]])


def spread(line: dict, name: str) -> str:
    """mean ± standard deviation of a figure, or the one value, or a dash."""
    mean, std = line["mean"].get(name, float("nan")), line["std"].get(name, float("nan"))
    if np.isnan(mean):
        return "-"
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def text_table(rows: list[dict], color: bool = False) -> str:
    """The benchmark for a terminal: a block a mode and variant; the paper's figures in grey beside it."""
    if not rows:
        return "no runs"
    paper, lines = paper_rows(rows[0]["dataset"]), standings(rows)
    attributes = list(dict.fromkeys(n for line in lines for n in line["mean"] if n.startswith(PER_ATTRIBUTE)))
    out, block = [], None
    for line in lines:
        if (line["mode"], line["variant"]) != block:
            block = (line["mode"], line["variant"])
            title = ", ".join(filter(None, (rows[0]["dataset"], f"mode {line['mode']}", line["variant"])))
            out += ["", title, _head(attributes, bool(paper))]
        out.append(_line(line, attributes, paper, color))
    chance = rows[0].get("random_map_weighted")
    return "\n".join([*out[1:], *([f"random ranking: weighted mAP {chance:.2f}"] if chance else [])])


def _head(attributes: list[str], paper: bool) -> str:
    names = "".join(f"{n.removeprefix(PER_ATTRIBUTE).replace('_', ' ')[:9]:>10}" for n in attributes)
    beside = f"{'paper':>8}" if paper else ""
    return (f"{'system':<12}{'weighted mAP':>14}{beside}{'macro':>14}{names}{'parameters':>12}{'embed':>10}"
            f"{'training':>12}")  # fmt: skip


def _line(line: dict, attributes: list[str], paper: dict, color: bool) -> str:
    row, beside = line["rows"][-1], ""
    if paper:
        theirs = paper.get(TITLES[line["model"]], {}).get("mAP")
        beside = f"{theirs:>8.2f}" if theirs is not None else f"{'':>8}"
        beside = f"{GREY}{beside}{RESET}" if color else beside
    each = "".join(f"{line['mean'].get(n, float('nan')):>10.1f}" for n in attributes)
    cost = "".join(f"{row[n]:>{w},.{d}f}{unit}" if row.get(n) is not None else f"{'':>{w + len(unit)}}"
                   for n, w, d, unit in (("parameters", 12, 0, ""), ("embed_ms", 7, 2, " ms"),
                                         ("images_per_second", 7, 0, " im/s")))  # fmt: skip
    wrong = told(line)
    return (f"{line['model']:<12}{spread(line, 'map_weighted'):>14}{beside}{spread(line, 'map_macro'):>14}{each}{cost}"
            + (f"  {wrong}" if wrong else ""))  # fmt: skip


def markdown(rows: list[dict]) -> str:
    """The weighted mAP of every system in each mode, for the README: a line a system; costs where measured."""
    lines = standings([row for row in rows if not row.get("variant")])
    modes = sorted({line["mode"] for line in lines})
    table = [["system", *(_mode_head(mode, lines) for mode in modes), "trained parameters", "embedding, all K spaces",
              "training"]]  # fmt: skip
    for model in dict.fromkeys(line["model"] for line in sorted(lines, key=lambda l: l["mode"])):
        of = {line["mode"]: line for line in lines if line["model"] == model}
        row = next(iter(of.values()))["rows"][-1]
        cells = [_cell(of[mode]) if mode in of else "" for mode in modes]
        cost = [f"{row['trained_parameters']:,.0f}" if row.get("trained_parameters") else "",
                f"{row['embed_ms']:.1f} ms" if row.get("embed_ms") else "",
                f"{row['images_per_second']:,.0f} images/s" if row.get("images_per_second") else ""]  # fmt: skip
        table.append([f"`{model}`", *cells, *cost])
    filled = [column for column in zip(*table) if any(column[1:])]
    head, *body = (f"| {' | '.join(cells)} |" for cells in zip(*filled))
    return "\n".join([head, "|" + "---|" * len(filled), *body])


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
            cells = [f"`{mode}`", f"`{model}`", *changed, str(line["seeds"]), f"{trained:,.0f}" if trained else ""]
            table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table)


def _mode_head(mode: str, lines: list[dict]) -> str:
    """A mode with the budget of its runs and how many seeds each system has: "`spaces`, epochs=10, 3 seeds"."""
    of = [line for line in lines if line["mode"] == mode]
    budgets = sorted({str(row["budget"]) for line in of for row in line["rows"] if row.get("budget")})
    seeds = sorted({line["seeds"] for line in of})
    told = f"{seeds[0]} seed" if seeds == [1] else f"{'-'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds"
    return ", ".join([f"`{mode}`", *budgets, told])


def _cell(line: dict) -> str:
    wrong = told(line)
    return spread(line, "map_weighted") + (f" ({wrong})" if wrong else "")
