"""The paper's tables, checked by label counts alone: overall figures, random rows, ceilings, statements.

`protocol.json` holds the counts of ASEN's split files by attribute and value, and the files' checksums, but
not the files. `python data_prep/paper_counts.py FOLDER_OF_THE_SPLIT_FILES` makes it from them.
"""

from __future__ import annotations

import numpy as np

from ccakit.audit.claims import claims, overall
from ccakit.audit.labels import ceilings
from ccakit.audit.tables import label_counts, paper_tables
from ccakit.metrics import expected_random_ap
from ccakit.text_table import text_table

FIGURES = ("attributes", "classes", "images")  # of Table 1
DATASETS = ("FashionAI", "DARN", "DeepFashion")
TOLERANCE = 0.01 + 1e-9  # between a printed figure and the mean of printed figures, all with two decimals
NO_EMBEDDINGS = "triplet accuracy depends on the images' embeddings; no counts can check it"
NO_LISTS = "the paper follows CSN's triplets here, and no lists with label counts are known"
NO_TRAIN = "the list of training images is not known"


def audit_paper() -> dict:
    """Check the paper's tables by label counts; returns what --json prints.

    "rows": every row of Tables 2-4, its overall figure as printed, weighted by query, and as plain mean.
    "not_checkable": the figures of Tables 1 and 5 that no counts can check. "random": the printed random rows
    beside their exact expectation. "ceilings" and "several": of the test splits. "gains": CCA's gains over
    the rows that do not fit, restated. "claims": the paper's statements, and whether they hold.
    """
    tables, facts = paper_tables(), label_counts()["datasets"]
    pairs = [(name, method) for name in DATASETS for method in tables[name]["rows"]]
    rows = [row_fits(tables[name], facts[name], name, method) for name, method in pairs]
    random = {name: random_rows(tables[name], facts[name]) for name in DATASETS}
    tests = {name: facts[name]["splits"]["test"] for name in DATASETS}
    found = claims(tables, facts, random)
    return {
        "rows": rows,
        "not_checkable": not_checkable(tables, found),
        "random": random,
        "ceilings": {name: ceilings(test["queries"], test["candidates"]) for name, test in tests.items()},
        "several": {name: _several(test["several"]) for name, test in tests.items()},
        "gains": [restated_gain(tables, row) for row in rows if not row["fits"]],
        "claims": found,
    }


def _several(counts: dict) -> dict:
    return {**counts, "share": 100 * counts["rows"] / counts["of"]}


def not_checkable(tables: dict, found: list[dict]) -> list[dict]:
    """List what no counts can check, and why: Table 5, and figures of Table 1 without a claim in `found`."""
    checked, left = {claim["says"].replace(",", "") for claim in found}, []
    for row in tables["statistics"]["rows"]:
        name = row["dataset"]
        figures = {key: row[key] for key in FIGURES if f"{name}: {row[key]} {key}" not in checked}
        if figures:
            why = NO_TRAIN if name in DATASETS else NO_LISTS
            left.append({"dataset": name, "table": tables["statistics"]["table"], **figures, "why": why})
    place = {"dataset": "Zappos50K", "table": tables["Zappos50K"]["table"]}
    for method, row in tables["Zappos50K"]["rows"].items():
        left.append({**place, "method": method, "accuracy": row["accuracy"], "why": NO_EMBEDDINGS})
    return left


def row_fits(table: dict, facts: dict, dataset: str, method: str) -> dict:
    """Recompute a row's overall figure from its attributes' figures and the test split's query counts.

    "fits": whether the printed figure is the mean weighted by query, to rounding. "is": which mean it is
    (map_weighted, map_macro), or the attribute whose figure it repeats, or "neither".
    """
    row, queries = table["rows"][method], facts["splits"]["test"]["queries"]
    figures = [row["per_attribute"][name] for name in table["attributes"]]
    weighted = float(np.average(figures, weights=[sum(queries[name]) for name in table["attributes"]]))
    means = {"map_weighted": weighted, "map_macro": float(np.mean(figures))}
    candidates = {**means, **row["per_attribute"]}
    near = [name for name, value in candidates.items() if abs(row["mAP"] - value) <= TOLERANCE]
    place = {"dataset": dataset, "table": table["table"], "method": method, "printed": row["mAP"]}
    return {**place, **means, "fits": "map_weighted" in near, "is": near[0] if near else "neither"}


def expected_aps(facts: dict, split: str = "test") -> dict[str, np.ndarray]:
    """Compute the exact expected AP (0..1) of a random ranking for every query of each attribute, (Q,)."""
    counts, aps = facts["splits"][split], {}
    for name, queries in counts["queries"].items():
        candidates = np.array(counts["candidates"][name])
        aps[name] = np.repeat(expected_random_ap(candidates.sum(), candidates), queries)
    return aps


def random_rows(table: dict, facts: dict) -> dict:
    """Compare the printed random row with its exact expectation, in percent: overall and per attribute."""
    row, aps = table["rows"]["Random baseline"], expected_aps(facts)
    each = {name: _difference(row["per_attribute"][name], aps[name]) for name in table["attributes"]}
    return {"overall": _difference(row["mAP"], np.concatenate(list(aps.values()))), "per_attribute": each}


def _difference(printed: float, aps: np.ndarray) -> dict:
    expected = 100 * float(aps.mean())
    return {"printed": printed, "expected": expected, "difference": printed - expected}  # in points


def restated_gain(tables: dict, row: dict) -> dict:
    """Compute CCA (Type-2)'s gain over a row that does not fit, as printed and by the row's weighted mean."""
    ours = overall(tables, row["dataset"], "CCA (Type-2)")
    printed, restated = ours - row["printed"], ours - row["map_weighted"]
    place = {"dataset": row["dataset"], "table": row["table"], "over": row["method"]}
    return {**place, "printed": printed, "restated": restated, "understated_by": restated - printed}


def table(result: dict) -> str:
    """Write the result of `audit_paper` for a terminal."""
    blocks = [
        _rows(result["rows"]),
        _not_checkable(result["not_checkable"]),
        _random(result["random"]),
        _ceilings(result),
        _gains(result["gains"]),
        _claims(result["claims"]),
    ]
    return "\n\n".join(blocks)


def _rows(rows: list[dict]) -> str:
    lines = [["", "", "", "printed", "weighted", "plain", ""]]
    for row in rows:
        flag = "" if row["fits"] else f"! printed is {_which_mean(row['is'])}"
        figures = [f"{row[key]:.2f}" for key in ("printed", "map_weighted", "map_macro")]
        lines.append([row["table"], row["dataset"], row["method"], *figures, flag])
    fitting = sum(row["fits"] for row in rows)
    foot = f"{fitting} of {len(rows)} are the mean weighted by query, to rounding"
    return "\n".join(["overall mAP of Tables 2-4", text_table(lines, left=(0, 1, 2, 6)), foot])


def _which_mean(kind: str) -> str:
    known = {"map_macro": "the plain mean", "neither": "neither mean"}
    return known.get(kind, f"neither mean, but the row's {kind.replace('_', ' ')} figure")


def _not_checkable(rows: list[dict]) -> str:
    lines = ["what no label counts can check:"]
    accuracies = [row for row in rows if "method" in row]
    for row in rows[: len(rows) - len(accuracies)]:
        figures = ", ".join(f"{row[key]:,} {key}" for key in FIGURES if key in row)
        lines.append(f"  {row['table']}: {row['dataset']}, {figures}: {row['why']}")
    lines.append(f"  {accuracies[0]['table']} ({len(accuracies)} rows): {accuracies[0]['why']}")
    return "\n".join(lines)


def _random(random: dict) -> str:
    lines = [["", "", "printed", "expected", "off"]]
    for dataset, row in random.items():
        for name, figure in {**row["per_attribute"], "weighted by query": row["overall"]}.items():
            off = round(figure["difference"], 2) + 0.0  # no negative zero
            figures = [f"{figure['printed']:.2f}", f"{figure['expected']:.2f}", f"{off:+.2f}"]
            lines.append([dataset, name.replace("_", " "), *figures])
    return "random rankings (mAP, test)\n" + text_table(lines, left=(0, 1))


def _ceilings(result: dict) -> str:
    lines = [["test splits", "queries", "unanswered", "ceiling", "plain", "several values"]]
    for dataset, row in result["ceilings"].items():
        counts = [str(row["queries"]), str(row["unanswered"])]
        means = [f"{row['map_weighted']:.2f}", f"{row['map_macro']:.2f}"]
        lines.append([dataset, *counts, *means, f"{result['several'][dataset]['share']:.1f}%"])
    return text_table(lines)


def _gains(gains: list[dict]) -> str:
    lines = [["", "", "", "printed", "restated", "change"]]
    for gain in gains:
        figures = [f"{gain['printed']:.2f}", f"{gain['restated']:.2f}", f"{gain['understated_by']:+.2f}"]
        lines.append([gain["table"], gain["dataset"], gain["over"], *figures])
    return "gain of CCA (Type-2)\n" + text_table(lines, left=(0, 1, 2))


def _claims(found: list[dict]) -> str:
    lines = [f"what the paper says: {sum(claim['holds'] for claim in found)} of {len(found)} statements hold"]
    for claim in found:
        mark = " " if claim["holds"] else "!"
        lines.append(f"  {mark} {claim['where']}: {claim['says']}\n      {claim['computed']}")
    return "\n".join(lines)
