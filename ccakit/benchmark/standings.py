"""The benchmark's tables: means over seeds, in the order of the paper's rows, beside the paper's figures."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd

from ccakit.audit.tables import bare_name, paper_rows
from ccakit.benchmark.results import PER_ATTRIBUTE, PER_TRIPLETS, at_chance
from ccakit.models.registry import list_models, reads_on
from ccakit.models.trunks.lite import LITE
from ccakit.text_table import ANSI, text_table

GREY, RESET = "\033[90m", "\033[0m"
TITLES = {info.name: info.title for info in list_models()}
OVERALL = {"map_weighted": "weighted mAP", "map_macro": "macro mAP", "triplet_accuracy": "triplet accuracy"}
PRINTED = {"map_weighted": "mAP", "triplet_accuracy": "accuracy"}  # a figure's name in the paper's tables


def standings(rows: list[dict]) -> list[dict]:
    """Summarize the rows: a line for each mode, variant and system, systems in the paper's order.

    A line holds "mode", "variant", "model"; its "rows"; "seeds", the number of rows that have figures; "mean"
    and "std" over these, of the overall figures and of each map:NAME and triplets:NAME (std is NaN for one
    seed); how many runs "collapsed" or are "at_chance"; and the statuses of those that "failed".
    """
    if not rows:
        return []
    frame = pd.DataFrame([{"map_weighted": None, **row} for row in rows]).assign(
        variant=[row.get("variant") or "" for row in rows]
    )
    figures = [name for name in frame if name in OVERALL or name.startswith((PER_ATTRIBUTE, PER_TRIPLETS))]
    frame[figures] = frame[figures].astype(float)
    for name, first in {"mode": [], "variant": [], "model": list(TITLES)}.items():
        frame[name] = pd.Categorical(frame[name], list(dict.fromkeys([*first, *frame[name]])))
    lines = []
    for (mode, variant, model), group in frame.groupby(["mode", "variant", "model"], observed=True):
        own = [rows[i] for i in group.index]
        line = {"mode": mode, "variant": variant, "model": model, "rows": own}
        line["seeds"] = int(group["map_weighted"].count())
        line["mean"], line["std"] = group[figures].mean().to_dict(), group[figures].std().to_dict()
        line["collapsed"] = sum(row["status"] == "collapsed" for row in own)
        line["at_chance"] = sum(row["status"] != "collapsed" and at_chance(row) for row in own)
        line["failed"] = [row["status"] for row in own if row["status"].startswith("failed")]
        lines.append(line)
    return lines


def problems(line: dict) -> str:
    """Say what went wrong in a line's runs; empty if nothing did."""
    counts = {"collapsed": line["collapsed"], "at chance": line["at_chance"]}
    parts = [f"{count} of {len(line['rows'])} {what}" for what, count in counts.items() if count]
    return "; ".join([*parts, *line["failed"][:1]])


def mean_and_std(line: dict, name: str, missing: str = "-") -> str:
    """Write a figure's mean ± its standard deviation over seeds, the one value, or `missing`."""
    mean, std = line["mean"].get(name, np.nan), line["std"].get(name, np.nan)
    if np.isnan(mean):
        return missing
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def difference(line: dict, name: str, printed: float | None) -> str:
    """Write how far a figure's mean is from the paper's, in points; "" where one of them is missing."""
    mean = line["mean"].get(name, np.nan)
    return "" if printed is None or np.isnan(mean) else f"{mean - printed:+.2f}"


def paper_row(line: dict) -> dict:
    """Return the row of a line's system in the paper's tables; {} where the paper's system is another one.

    The paper's is another one where ours shares a trunk and theirs does not, and where our triplet network
    reads a vision transformer: the paper's reads a CNN.
    """
    trunk = line["rows"][-1].get("trunk", LITE)
    if footnotes([line]) or (line["model"] == "triplet" and reads_on("triplet", trunk) != "map"):
        return {}
    return paper_rows(line["rows"][0].get("dataset", "")).get(TITLES[line["model"]], {})


def footnotes(lines: list[dict]) -> dict[str, str]:
    """Explain, by name, the systems that share a trunk here although the authors' do not."""
    shared = {line["model"] for line in lines if any(row.get("shares_trunk") for row in line["rows"])}
    ours = [info for info in list_models() if info.name in shared and not info.system.shares_trunk]
    return {info.name: info.system.if_shared for info in ours}


def report(rows: list[dict], color: bool = False) -> str:
    """Write the benchmark for a terminal: by mode and variant, overall figures and costs, then attributes.

    The paper's figures stand beside ours or below them, in grey if `color`.
    """
    if not rows:
        return "no runs"
    lines, blocks = standings(rows), []
    for (mode, variant), block in groupby(lines, lambda line: (line["mode"], line["variant"])):
        block = list(block)
        overall = _without_empty_columns(_overall(block))
        words = [column for column, head in enumerate(overall[0]) if head in ("system", "")]
        title = ", ".join(filter(None, (rows[0]["dataset"], f"mode {mode}", variant)))
        blocks.append(f"{title}\n{text_table(overall, left=words)}")
        blocks.append(text_table(_attributes(block, PER_ATTRIBUTE, "system")))
        blocks.append(text_table(_attributes(block, PER_TRIPLETS, "triplet accuracy")))
    text = "\n\n".join(filter(None, [*blocks, "\n".join(_foot(rows, lines))]))
    return text if color else ANSI.sub("", text)


def _foot(rows: list[dict], lines: list[dict]) -> list[str]:
    """The lines below all blocks: footnotes, unreadable images, what a random ranking scores."""
    foot = [f"* {name}: {what}" for name, what in footnotes(lines).items()]
    if unreadable := max(row.get("unreadable") or 0 for row in rows):
        foot.append(f"unreadable images, left out of training and test: up to {unreadable} a run")
    chance = next((row["random_map_weighted"] for row in rows if row.get("random_map_weighted")), None)
    if chance:
        printed = paper_rows(rows[0]["dataset"]).get("Random baseline", {}).get("mAP")
        beside = f" (paper {printed:.2f}, difference {chance - printed:+.2f})" if printed else ""
        foot.append(f"random ranking: weighted mAP {chance:.2f}{beside}")
    return foot


def _overall(lines: list[dict]) -> list[list[str]]:
    """A line a system: its figures and the paper's, its costs, and what went wrong."""
    figures = [name for name in OVERALL if any(mean_and_std(line, name, "") for line in lines)]
    figures = figures or ["map_weighted"]
    heads = [head for name in figures for head in (OVERALL[name], "paper", "difference")]
    table = [["system", *heads, "parameters", "embedding", "training", ""]]
    for line in lines:
        cells, theirs, row = [_starred(line)], paper_row(line), line["rows"][-1]
        for name in figures:
            printed = theirs.get(PRINTED.get(name))
            cells += [mean_and_std(line, name), _grey(_number(theirs, PRINTED.get(name), digits=2))]
            cells.append(difference(line, name, printed))
        table.append([*cells, _number(row, "parameters"), *_costs(row, digits=2), problems(line)])
    return table


def _attributes(lines: list[dict], kind: str, head: str) -> list[list[str]]:
    """A line a system: a figure of each attribute; below the mAPs, the paper's."""
    names = [name for name in lines[0]["mean"] if name.startswith(kind)]
    names = [name for name in names if any(mean_and_std(line, name, "") for line in lines)]
    titles = [name.removeprefix(kind) for name in names]
    table = [[head, *(title.replace("_", " ") for title in titles)]]
    for line in lines:
        table.append([_starred(line), *(mean_and_std(line, name) for name in names)])
        theirs = {bare_name(name): value for name, value in paper_row(line).get("per_attribute", {}).items()}
        if theirs and kind == PER_ATTRIBUTE:
            printed = [_number(theirs, bare_name(title), digits=2) for title in titles]
            table.append([_grey(cell) for cell in ["  paper", *printed]])
            apart = [
                difference(line, name, theirs.get(bare_name(title))) for name, title in zip(names, titles)
            ]
            table.append(["  difference", *apart])
    return table if names else []


def _starred(line: dict) -> str:
    return line["model"] + ("*" if footnotes([line]) else "")


def _grey(text: str) -> str:
    return text and f"{GREY}{text}{RESET}"


def _number(row: dict, name: str | None, unit: str = "", digits: int = 0) -> str:
    return "" if row.get(name) is None else f"{row[name]:,.{digits}f}{unit}"


def _costs(row: dict, digits: int) -> list[str]:
    """The time of an image's K embeddings and the speed of training, where they were measured."""
    return [_number(row, "embed_ms", " ms", digits), _number(row, "images_per_second", " images/s")]


def _without_empty_columns(table: list[list[str]]) -> list[list[str]]:
    columns = [column for column in zip(*table) if any(column[1:])]
    return [list(row) for row in zip(*columns)]


def markdown(rows: list[dict]) -> str:
    """Write the weighted mAP of every system as a Markdown table: a column for each mode and variant.

    Beside it stand the paper's figures where the data set is the paper's, triplet accuracy where it was
    measured, and the costs of the first column whose were; below the table, the footnotes. A variant's
    parameters follow those of the system as it is, where they differ.
    """
    lines = standings(rows)
    found, notes = {_protocol(line): line for line in lines}, footnotes(lines)
    protocols = sorted(found, key=lambda protocol: (protocol[0], list(found).index(protocol)))
    heads = [_protocol_head(protocol, lines) for protocol in protocols]
    accuracies = [f"{_quoted(*protocol)}, triplet accuracy" for protocol in protocols]
    costs = ["trained parameters", "embedding, all K spaces", "training"]
    table = [["system", *heads, "paper", *accuracies, "paper", *costs]]
    for model in dict.fromkeys(line["model"] for line in sorted(lines, key=lambda line: line["mode"])):
        own = {_protocol(line): line for line in lines if line["model"] == model}
        first = next(iter(own.values()))
        theirs, last = paper_row(first), [line["rows"][-1] for line in own.values()]
        row = next((row for row in last if row.get("embed_ms")), last[0])
        cells = [f"`{model}`" + (r" \*" if model in notes else "")]
        cells += [_score(own[each]) if each in own else "" for each in protocols]
        cells.append(_number(theirs, "mAP", digits=2))
        cells += [mean_and_std(own[p], "triplet_accuracy", "") if p in own else "" for p in protocols]
        cells.append(_number(theirs, "accuracy", digits=2))
        trained = dict.fromkeys(_number(line["rows"][-1], "trained_parameters") for line in own.values())
        table.append([*cells, "; ".join(filter(None, trained)), *_costs(row, digits=1)])
    foot = "".join(f"\n\n\\* `{name}`: {what}" for name, what in notes.items())
    return _markdown_table(_without_empty_columns(table)) + foot


def ablations_markdown(rows: list[dict]) -> str:
    """Write the weighted mAP of every variant as a Markdown table, and its gain over the system as it is."""
    lines = standings(rows)
    unchanged = {_changed_from(x): x["mean"]["map_weighted"] for x in lines if not changed(x)}
    systems = list(dict.fromkeys(map(_changed_from, lines)))
    table = [["mode", "system", "training", "changed", "weighted mAP", "", "seeds", "trained parameters"]]
    for line in sorted(lines, key=lambda line: (systems.index(_changed_from(line)), changed(line) != "")):
        system, gain = _changed_from(line), ""
        if changed(line) and system in unchanged:
            gain = f"{line['mean']['map_weighted'] - unchanged[system]:+.1f}"
        cells = [f"`{part}`" if part else "" for part in (*system, changed(line))]
        cells[2:] = cells[2] or "default", cells[3] or "nothing"
        trained = _number(line["rows"][-1], "trained_parameters")
        table.append([*cells, _score(line), gain, str(line["seeds"]), trained])
    return _markdown_table(_without_empty_columns(table))


def worst_markdown(rows: list[dict]) -> str:
    """Write each line's weighted and macro mAP and its worst attribute as a Markdown table."""
    heads = ["data", "system", "training", "seeds", "weighted mAP", "macro mAP", "worst attribute"]
    table = [[*heads, "trained parameters"]]
    for line in standings(rows):
        worst = pd.Series(line["mean"]).filter(like=PER_ATTRIBUTE).idxmin()
        title = worst.removeprefix(PER_ATTRIBUTE).replace("_", " ")
        cells = [line["rows"][0]["dataset"], f"`{line['model']}`", line["variant"] or "default"]
        cells += [str(line["seeds"]), *(mean_and_std(line, name) for name in ("map_weighted", "map_macro"))]
        cells += [f"{title} {mean_and_std(line, worst)}", _number(line["rows"][-1], "trained_parameters")]
        table.append(cells)
    return _markdown_table(table)


def changed(line: dict) -> str:
    """Say what a line's variant changes of our training, or of `plain`."""
    return line["variant"].removeprefix("plain").strip()


def _changed_from(line: dict) -> tuple[str, str, str]:
    """Name what a line is compared with: mode, system, and "plain" or "" for our training."""
    return line["mode"], line["model"], "plain" if line["variant"].startswith("plain") else ""


def _markdown_table(table: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(cells)} |" for cells in table)
    return "\n".join([head, "|" + "---|" * len(table[0]), *body])


def _protocol(line: dict) -> tuple[str, str]:
    return line["mode"], line["variant"]


def _quoted(mode: str, variant: str) -> str:
    return ", ".join(f"`{part}`" for part in (mode, variant) if part)


def _protocol_head(protocol: tuple[str, str], lines: list[dict]) -> str:
    """A mode, the variant and budget of its runs, and how many seeds a system has: "`spaces`, epochs=10, 3
    seeds"."""
    lines = [line for line in lines if _protocol(line) == protocol]
    budgets = sorted({str(row["budget"]) for line in lines for row in line["rows"] if row.get("budget")})
    seeds = sorted({line["seeds"] for line in lines})
    count = f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    noun = "seed" if seeds == [1] else "seeds"
    return ", ".join([_quoted(*protocol), *budgets, f"{count} {noun}"])


def _score(line: dict) -> str:
    text, wrong = mean_and_std(line, "map_weighted"), problems(line)
    return f"{text} ({wrong})" if wrong else text
