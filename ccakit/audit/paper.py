"""The paper's protocol, audited from label counts alone: overall figures, random rows, ceilings, what contradicts what.

`protocol.json` holds the counts of ASEN's split files, per attribute and value, with the files' checksums; not the
files. `python data_prep/paper_counts.py FOLDER_OF_THE_SPLIT_FILES` makes it from them.
"""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np

from ccakit.audit.claims import claims, overall
from ccakit.metrics import expected_random_ap

FIGURES = ("attributes", "classes", "images")  # of Table 1
DATASETS = ("FashionAI", "DARN", "DeepFashion")
TOLERANCE = 0.01 + 1e-9  # a mean of figures with two decimals, beside a figure with two decimals
WHY_NOT = "triplet accuracy depends on the images' embeddings; no counts can check it"
NO_LISTS = "the paper follows CSN's triplets here, and no lists with label counts are known"
NO_TRAIN = "the list of training images is not known"


def shipped() -> dict:
    """The facts of protocol.json."""
    return json.loads(files("ccakit.audit").joinpath("protocol.json").read_text())


def audit_paper() -> dict:
    """Everything that label counts can tell of the paper's tables, as JSON has it.

    "rows": every row of Tables 2-4, its overall figure as printed, weighted by query and as plain mean;
    "not_checkable": what no counts can check, of Tables 1 and 5; "random": the exact expectation beside the printed
    random rows; "ceilings" and "several" (of the test splits); "gains" restated; "claims": what the paper says, and
    whether it holds.
    """
    tables = json.loads(files("ccakit.audit").joinpath("paper.json").read_text())
    facts = shipped()["datasets"]
    rows = [
        row_fits(tables[name], facts[name], name, method)
        for name in DATASETS
        for method in tables[name]["rows"]
    ]
    random = {name: random_rows(tables[name], facts[name]) for name in DATASETS}
    found = claims(tables, facts, random)
    return {
        "rows": rows,
        "not_checkable": not_checkable(tables, found),
        "random": random,
        "ceilings": {name: ceilings(facts[name]) for name in DATASETS},
        "several": {
            name: {**of, "share": 100 * of["rows"] / of["of"]}
            for name in DATASETS
            for of in [facts[name]["splits"]["test"]["several"]]
        },
        "gains": [gain for row in rows if not row["fits"] for gain in [_gain(tables, row)]],
        "claims": found,
    }


def not_checkable(tables: dict, found: list[dict]) -> list[dict]:
    """What is printed and cannot be checked, and why: figures of Table 1 without a claim in `found`, and Table 5."""
    said, left = {each["says"].replace(",", "") for each in found}, []
    for row in tables["statistics"]["rows"]:
        name = row["dataset"]
        figures = {of: row[of] for of in FIGURES if f"{name}: {row[of]} {of}" not in said}
        why = NO_TRAIN if name in DATASETS else NO_LISTS
        left += [{"dataset": name, "table": tables["statistics"]["table"], **figures, "why": why}] * bool(
            figures
        )
    accuracies = tables["Zappos50K"]
    return left + [
        {
            "dataset": "Zappos50K",
            "table": accuracies["table"],
            "method": method,
            "accuracy": row["accuracy"],
            "why": WHY_NOT,
        }
        for method, row in accuracies["rows"].items()
    ]


def row_fits(table: dict, facts: dict, dataset: str, method: str) -> dict:
    """A row's overall figure, recomputed from its per-attribute figures by the test split's query counts.

    "fits": the printed figure is the query-weighted mean, to rounding. "is": which mean it is (map_weighted,
    map_macro), or the attribute whose figure it repeats, or "neither".
    """
    row, asked = table["rows"][method], facts["splits"]["test"]["queries"]
    figures = [row["per_attribute"][name] for name in table["attributes"]]
    weighted = float(np.average(figures, weights=[sum(asked[name]) for name in table["attributes"]]))
    plain, printed = float(np.mean(figures)), row["mAP"]
    means = {"map_weighted": weighted, "map_macro": plain, **row["per_attribute"]}
    near = [name for name, mean in means.items() if abs(printed - mean) <= TOLERANCE]
    return {
        "dataset": dataset,
        "table": table["table"],
        "method": method,
        "printed": printed,
        "map_weighted": weighted,
        "map_macro": plain,
        "fits": "map_weighted" in near,
        "is": near[0] if near else "neither",
    }


def expected_aps(facts: dict, split: str = "test") -> dict[str, np.ndarray]:
    """Per attribute, the exact expected AP (0..1) of a random ranking for every query, (Q,), from counts alone."""
    of = facts["splits"][split]
    return {
        name: np.repeat(
            expected_random_ap(sum(of["candidates"][name]), np.array(of["candidates"][name])), asked
        )
        for name, asked in of["queries"].items()
    }


def random_rows(table: dict, facts: dict) -> dict:
    """The printed random row beside its exact expectation, in percent: "overall" and "per_attribute"."""
    row, aps = table["rows"]["Random baseline"], expected_aps(facts)
    pairs = {
        name: (row["per_attribute"][name], 100 * float(aps[name].mean())) for name in table["attributes"]
    }
    beside = {name: _beside(*pair) for name, pair in pairs.items()}
    whole = 100 * float(np.mean(np.concatenate(list(aps.values()))))
    return {"overall": _beside(row["mAP"], whole), "per_attribute": beside}


def _beside(printed: float, expected: float) -> dict:
    return {"printed": printed, "expected": expected, "difference": printed - expected}  # in points


def ceilings(facts: dict, split: str = "test") -> dict:
    """The most that mAP can be, in percent, given the queries without a relevant candidate."""
    of = facts["splits"][split]
    asked = {name: sum(queries) for name, queries in of["queries"].items()}
    lost = {
        name: sum(q for q, c in zip(of["queries"][name], of["candidates"][name]) if not c) for name in asked
    }
    each = {name: 100 * (1 - lost[name] / n) for name, n in asked.items()}
    total, missed = sum(asked.values()), sum(lost.values())
    return {
        "queries": total,
        "unanswered": missed,
        "map_weighted": 100 * (1 - missed / total),
        "map_macro": float(np.mean(list(each.values()))),
        "map_per_attribute": each,
    }


def _gain(tables: dict, row: dict) -> dict:
    """CCA (Type-2) over a row that does not fit, as printed and with both overall figures query-weighted."""
    ours = overall(tables, row["dataset"], "CCA (Type-2)")
    printed, restated = ours - row["printed"], ours - row["map_weighted"]
    return {
        "dataset": row["dataset"],
        "table": row["table"],
        "over": row["method"],
        "printed": printed,
        "restated": restated,
        "understated_by": restated - printed,
    }


def table(result: dict) -> str:
    """What `ccakit audit --paper` prints, from the result of `audit_paper`."""
    blocks = [
        _rows(result),
        _left(result["not_checkable"]),
        _random(result["random"]),
        _ceilings(result),
        _gains(result["gains"]),
        _claims(result["claims"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _rows(result: dict) -> list[str]:
    lines = [f"{'overall mAP of Tables 2-4':<34}{'printed':>9}{'weighted':>10}{'plain':>8}"]
    for row in result["rows"]:
        flag = "" if row["fits"] else f"  ! printed is {_is(row['is'])}"
        lines.append(
            f"{row['table']:<9}{row['dataset']:<12}{row['method']:<16}"[:36].ljust(36)
            + f"{row['printed']:>7.2f}{row['map_weighted']:>10.2f}{row['map_macro']:>8.2f}{flag}"
        )
    fit = sum(row["fits"] for row in result["rows"])
    return [*lines, f"{fit} of {len(result['rows'])} are the mean weighted by query, to rounding"]


def _left(rows: list[dict]) -> list[str]:
    lines = ["what no label counts can check:"]
    for row in rows:
        if figures := [f"{row[of]:,} {of}" for of in FIGURES if of in row]:
            lines.append(f"  {row['table']}: {row['dataset']}, {', '.join(figures)}: {row['why']}")
    accuracies = [row for row in rows if "method" in row]
    return [*lines, f"  {accuracies[0]['table']} ({len(accuracies)} rows): {accuracies[0]['why']}"]


def _is(what: str) -> str:
    known = {"map_macro": "the plain mean", "neither": "neither mean"}
    return known.get(what, f"neither mean, but the row's {what.replace('_', ' ')} figure")


def _random(random: dict) -> list[str]:
    lines = [f"{'random rankings (mAP, test)':<34}{'printed':>9}{'expected':>10}{'off':>8}"]
    for dataset, of in random.items():
        for name, each in [*of["per_attribute"].items(), ("weighted by query", of["overall"])]:
            lines.append(
                f"{dataset:<12}{name.replace('_', ' '):<24}{each['printed']:>7.2f}{each['expected']:>10.2f}"
                f"{round(each['difference'], 2) + 0.0:>+8.2f}"
            )
    return lines


def _ceilings(result: dict) -> list[str]:
    lines = [
        f"{'test splits':<12}{'queries':>9}{'unanswered':>12}{'ceiling':>9}{'plain':>8}{'several values':>16}"
    ]
    for dataset, of in result["ceilings"].items():
        lines.append(
            f"{dataset:<12}{of['queries']:>9}{of['unanswered']:>12}{of['map_weighted']:>9.2f}{of['map_macro']:>8.2f}"
            f"{result['several'][dataset]['share']:>15.1f}%"
        )
    return lines


def _gains(gains: list[dict]) -> list[str]:
    lines = [f"{'gain of CCA (Type-2) over':<34}{'printed':>9}{'restated':>10}{'change':>8}"]
    return lines + [
        f"{gain['table']:<9}{gain['dataset']:<12}{gain['over']:<15}{gain['printed']:>7.2f}"
        f"{gain['restated']:>10.2f}{gain['understated_by']:>+8.2f}"
        for gain in gains
    ]


def _claims(found: list[dict]) -> list[str]:
    lines = [f"what the paper says: {sum(each['holds'] for each in found)} of {len(found)} statements hold"]
    for each in found:
        lines.append(
            f"  {' ' if each['holds'] else '!'} {each['where']}: {each['says']}\n      {each['computed']}"
        )
    return lines
