"""Tables 2 to 4: mAP on FashionAI, DARN and DeepFashion as printed, checked by counts; and our benchmark.

Nothing here was trained on those data sets: our rows stand in blocks of their own, which name their data.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import shared
import sheets

from ccakit.audit.paper import audit_paper
from ccakit.audit.tables import paper_rows
from ccakit.benchmark.results import PER_ATTRIBUTE
from ccakit.benchmark.standings import mean_and_std, problems, standings

# by the table's number: the paper's data set, and the results file of ours that stands beside it
TABLES = {2: ("FashionAI", "garments"), 3: ("DARN", "fashion_mnist"), 4: ("DeepFashion", "fashion_mnist")}


def make(number: int, results: Path | None = None, audit: dict | None = None) -> sheets.Sheet:
    """Make Table 2, 3 or 4: the paper's block, and a block of our benchmark for each mode.

    The printed overall mAP stands beside the query-weighted and the plain mean of the row's own attributes;
    it is marked if it is not the weighted one. The exact expectation of the random row, from the label
    counts, follows it. results: a results file of `ccakit benchmark`, by default ours, if it is there.
    """
    audit = audit or audit_paper()
    dataset, ours = TABLES[number]
    measured = _measured(dataset, Path(results or shared.ROOT / f"results/{ours}.csv"))
    return sheets.Sheet(f"Table {number}. mAP (%) on {dataset}", [_printed(dataset, audit), *measured])


def _two_lines(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").replace(" ", "\n")


def _printed(dataset: str, audit: dict) -> sheets.Block:
    """Make the block of the paper's rows, their recomputed means, and the random row's expectation."""
    paper = paper_rows(dataset)
    means = {row["method"]: row for row in audit["rows"] if row["dataset"] == dataset}
    attributes = list(next(iter(paper.values()))["per_attribute"])
    best = {name: max(row["per_attribute"][name] for row in paper.values()) for name in attributes}
    best_map, rows, marked = max(row["mAP"] for row in paper.values()), [], set()
    for name, row in paper.items():
        mean = means[name]
        if not mean["fits"]:
            marked.add((len(rows), 2))
        rows.append(
            [
                sheets.method(name, row),
                row["backbone"],
                sheets.bold(row["mAP"], best_map),
                f"{mean['map_weighted']:.2f}",
                f"{mean['map_macro']:.2f}",
                *(sheets.bold(row["per_attribute"][name], best[name]) for name in attributes),
            ]
        )
        if name == "Random baseline":
            rows.append(_expected(audit["random"][dataset], attributes))
    head = ["method", "trunk", "mAP\n(printed)", "weighted", "plain", *map(_two_lines, attributes)]
    title = "The paper's figures, and their means recomputed"
    return sheets.Block(title, head, rows, _notes(dataset, audit, means), marked)


def _expected(random: dict, attributes: list[str]) -> list[str]:
    each = [random["per_attribute"][name]["expected"] for name in attributes]
    weighted = f"{random['overall']['expected']:.2f}"
    figures = [f"{figure:.2f}" for figure in each]
    return ["  expected, exactly", "–", weighted, weighted, f"{np.mean(each):.2f}", *figures]


def _notes(dataset: str, audit: dict, means: dict) -> list[str]:
    misfits = {name: row for name, row in means.items() if not row["fits"]}
    wrong = [f"{name} {row['printed']:.2f} ({_explain(row['is'])})" for name, row in misfits.items()]
    notes = [
        "weighted, plain: the means of the row's own attributes, by the test split's queries and as they "
        "are. Bold: the best. †: the paper's own reproduction."
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
    return notes + sheets.contradicted(dataset, means[next(iter(means))]["table"], audit)


def _explain(kind: str) -> str:
    repeats = f"it repeats {kind.replace('_', ' ')}"
    return {"map_macro": "it is the plain mean", "neither": "it is neither mean"}.get(kind, repeats)


def _measured(dataset: str, file: Path) -> list[sheets.Block]:
    """Make the blocks of our benchmark: one a mode and training, systems in the order of the paper's rows."""
    rows = [row for row in sheets.results(file) if row.get("variant") in (None, "", "plain")]
    if not rows:
        file = sheets.named(file)
        missing = f"Nothing is measured here yet: {file} is not there, or holds no rows (`ccakit benchmark`)."
        return [sheets.Block(f"Our benchmark (not {dataset})", [], [], [missing])]
    lines = standings(rows)
    by_training = groupby(lines, lambda line: (line["mode"], line["variant"]))
    return [_block(dataset, mode, variant, list(group)) for (mode, variant), group in by_training]


def _block(dataset: str, mode: str, variant: str, lines: list[dict]) -> sheets.Block:
    """Make the block of a mode and a variant: means over seeds, ± the deviation of overall figures.

    The best system is bold; the K networks do not take part.
    """
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
        f"Means over seeds, ± standard deviation. Budget {first['budget']}, trunk {first['trunk']}. Bold: "
        f"the best single network; `networks` are {len(attributes)} networks."
    )
    names = [_two_lines(name.removeprefix(PER_ATTRIBUTE)) for name in attributes]
    head = ["system", "seeds", "mAP\nweighted", "mAP\nplain", *names]
    title = f"Our benchmark on {sheets.about(first['dataset'])} (not {dataset}), trained in mode {mode}"
    title += ", attributes not balanced" if variant == "plain" else ""
    return sheets.Block(title, head, rows, notes)


def _mean(line: dict, name: str, best: dict) -> str:
    text = mean_and_std(line, name) if name.startswith("map_") else f"{line['mean'][name]:.1f}"
    bolded = line["model"] != "networks" and line["mean"][name] == best[name]
    return f"**{text}**" if bolded else text.replace("nan", "–")


def main(argv=None):
    numbers = (
        "--tables",
        dict(type=int, nargs="*", choices=TABLES, default=list(TABLES), help="which to make"),
    )
    given = shared.arguments(__doc__, argv, sheets.RESULTS, numbers)
    paths = []
    for number in given.tables:
        paths += sheets.write_sheet(make(number, given.results), f"table{number}", given.out)
    return paths


if __name__ == "__main__":
    main()
