"""The audit of the paper: overall figures, random rows, ceilings and statements, from label counts alone."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

from ccakit.attributes import Attributes
from ccakit.audit import paper as protocol
from ccakit.audit.claims import claims
from ccakit.audit.labels import ceilings
from ccakit.audit.tables import label_counts, paper_tables
from ccakit.cli import main
from ccakit.metrics import random_map

QUERIES = {"FashionAI": 3600, "DARN": 4293, "DeepFashion": 5525}
TABLES = paper_tables()
FACTS = label_counts()["datasets"]


@pytest.fixture(scope="module")
def result() -> dict:
    return protocol.audit_paper()


def rows_of_counts(counts: dict[str, list[int]], first: int = 0) -> np.ndarray:
    """Rows (image, condition, label) with these counts per condition and label; images from `first` on."""
    pairs = [(c, v) for c, of in enumerate(counts.values()) for v, n in enumerate(of) for _ in range(n)]
    return np.array([(i, c, v) for i, (c, v) in enumerate(pairs, first)])


def test_the_facts_agree_with_each_other():
    for name, facts in FACTS.items():
        assert list(facts["splits"]) == (
            ["train", "valid", "test"] if name == "FashionAI" else ["valid", "test"]
        )
        assert facts["attributes"] == TABLES[name]["attributes"]
        for split in ("valid", "test"):
            of = facts["splits"][split]
            for side in ("queries", "candidates"):
                assert [len(counts) for counts in of[side].values()] == facts["sizes"]
                assert list(of[side]) == facts["attributes"]
            asked = rows_of_counts(of["queries"])
            ranked = {(c, v) for _, c, v in rows_of_counts(of["candidates"]).tolist()}
            assert len(asked) == QUERIES[name] and len(asked) * 5 <= of["count"] + 4
            assert of["unanswered"] == sum((c, v) not in ranked for _, c, v in asked.tolist())
    assert [FACTS[name]["splits"]["test"]["unanswered"] for name in FACTS] == [0, 3, 23]


def test_27_of_30_overall_figures_are_weighted_means(result):
    rows = {(row["dataset"], row["method"]): row for row in result["rows"]}
    assert len(rows) == 30 and sum(row["fits"] for row in rows.values()) == 27
    off = {
        key: (row["printed"], round(row["map_weighted"], 2), row["is"])
        for key, row in rows.items()
        if not row["fits"]
    }
    assert off == {
        ("FashionAI", "ASEN"): (61.02, 59.96, "map_macro"),
        ("FashionAI", "CAMNet"): (61.97, 62.02, "neck_design"),
        ("DARN", "M2Fashion"): (54.29, 54.24, "neither"),
    }
    for (dataset, method), row in rows.items():  # again, a query at a time
        per, asked = (
            TABLES[dataset]["rows"][method]["per_attribute"],
            FACTS[dataset]["splits"]["test"]["queries"],
        )
        every = [per[name] for name, counts in asked.items() for _ in range(sum(counts))]
        assert row["map_weighted"] == pytest.approx(sum(every) / len(every))
        assert row["map_macro"] == pytest.approx(sum(per.values()) / len(per))


def test_a_changed_figure_is_flagged():
    table = copy.deepcopy(TABLES["DARN"])
    table["rows"]["CCA (Type-2)"]["mAP"] += 0.03
    assert not protocol.row_fits(table, FACTS["DARN"], "DARN", "CCA (Type-2)")["fits"]
    assert protocol.row_fits(TABLES["DARN"], FACTS["DARN"], "DARN", "CCA (Type-2)")["fits"]


@pytest.mark.parametrize("name", QUERIES)
def test_random_rows_agree_with_random_map_on_rows_of_these_counts(name, result):
    of = FACTS[name]["splits"]["test"]
    attributes = Attributes.numbered(dict(zip(FACTS[name]["attributes"], FACTS[name]["sizes"])))
    candidates = rows_of_counts(of["candidates"], first=10**6)  # other images than the queries
    exact = random_map(rows_of_counts(of["queries"]), candidates, attributes)
    random = result["random"][name]
    assert random["overall"]["expected"] == pytest.approx(100 * exact.map_weighted)
    expected = [each["expected"] for each in random["per_attribute"].values()]
    assert expected == pytest.approx(list(100 * exact.map_per_attribute))
    printed = {key: each["printed"] for key, each in random["per_attribute"].items()}
    assert printed == TABLES[name]["rows"]["Random baseline"]["per_attribute"]


def test_random_rows_beside_the_papers(result):
    off = {
        name: [each["difference"] for each in of["per_attribute"].values()]
        for name, of in result["random"].items()
    }
    assert max(map(abs, off["FashionAI"] + off["DeepFashion"])) < 0.015, (
        "an expectation: one drawing is off by 0.1"
    )
    assert [round(d) for d in off["DARN"]] == [3, 1, 2, 0, 0, 1, 0, 1, 1]
    assert max(abs(d - round(d)) for d in off["DARN"]) < 0.02
    assert round(result["random"]["DARN"]["overall"]["expected"], 2) == 31.26


def test_the_real_files_give_the_same_expectation(splits, result):
    from ccakit.data.layout import read_dataset

    split = read_dataset(splits / "DARN", splits=("test",))["test"]
    exact = random_map(split.queries, split.candidates, split.attributes)
    assert result["random"]["DARN"]["overall"]["expected"] == pytest.approx(100 * exact.map_weighted)


def test_ceilings(result):
    assert {name: round(of["map_weighted"], 2) for name, of in result["ceilings"].items()} == {
        "FashionAI": 100,
        "DARN": 99.93,
        "DeepFashion": 99.58,
    }
    assert {name: of["unanswered"] for name, of in result["ceilings"].items()} == {
        "FashionAI": 0,
        "DARN": 3,
        "DeepFashion": 23,
    }
    queries, candidates = {"a": [2, 1, 1], "b": [4]}, {"a": [3, 0, 1], "b": [9]}
    of = ceilings(queries, candidates)
    assert (of["queries"], of["unanswered"], of["map_weighted"], of["map_macro"]) == (8, 1, 87.5, 87.5)
    assert of["map_per_attribute"] == {"a": 75.0, "b": 100.0}


def test_several_values(result):
    assert {name: round(of["share"], 1) for name, of in result["several"].items()} == {
        "FashionAI": 0,
        "DARN": 0,
        "DeepFashion": 46.3,
    }


def test_gains_restated(result):
    gains = {(gain["dataset"], gain["over"]): gain for gain in result["gains"]}
    assert {key: round(gain["understated_by"], 2) for key, gain in gains.items()} == {
        ("FashionAI", "ASEN"): 1.06,
        ("FashionAI", "CAMNet"): -0.05,
        ("DARN", "M2Fashion"): 0.05,
    }
    asen = gains["FashionAI", "ASEN"]
    assert (round(asen["printed"], 2), round(asen["restated"], 2)) == (8.01, 9.07)


def test_which_statements_hold(result):
    failed = [f"{each['where']}: {each['says']}" for each in result["claims"] if not each["holds"]]
    assert failed == [
        "Table 1: FashionAI: 55 classes",
        "Table 1: DARN: 195,771 images",
        "Table 1: DeepFashion: 6 attributes",
        "section 4.6: Zappos50K: Type-1 over Type-2 by +0.42",
        "section 4: difficulty increases with the number of attributes, and for higher classes",
        "Table 3: TF-ASEN on DARN: 33.52, the result of a trained model",
        "Table 3: random baseline on DARN: 32.26",
    ]
    computed = {each["says"]: each["computed"] for each in result["claims"]}
    assert computed["FashionAI: 55 classes"] == "6+9+8+6+5+5+10+5 = 54, of which 54 occur in the lists known"
    assert "214,619 // 10 = 21,461" in computed["DARN: 195,771 images"]
    assert computed["DeepFashion: 6 attributes"] == "5 in the split files, 5 in Table 4"
    assert "0.42 is Type-1's distance to TF-ASEN" in computed["Zappos50K: Type-1 over Type-2 by +0.42"]
    assert "8 of 9 attributes" in computed["TF-ASEN on DARN: 33.52, the result of a trained model"]
    assert "= 180,335" in computed["FashionAI: 180,335 images"] and len(computed) >= 20


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda t, f: t["statistics"]["rows"][0].update(classes=54), "FashionAI: 54 classes"),
        (lambda t, f: t["statistics"]["rows"][1].update(images=214_619), "DARN: 214,619 images"),
        (lambda t, f: t["statistics"]["rows"][2].update(attributes=5), "DeepFashion: 5 attributes"),
        (
            lambda t, f: t["Zappos50K"]["rows"]["CCA (Type-2)"].update(accuracy=94.56),
            "Zappos50K: Type-1 over Type-2 by +0.42",
        ),
        (
            lambda t, f: t["Zappos50K"]["rows"]["CCA (Type-2)"].update(accuracy=94.5),
            "!Zappos50K: Type-1 over Type-2 by +0.13",
        ),
        (
            lambda t, f: t["DARN"]["rows"]["TF-ASEN"].update(
                per_attribute=t["DARN"]["rows"]["TF-CSN"]["per_attribute"]
            ),
            "TF-ASEN on DARN: 33.52, the result of a trained model",
        ),
        (lambda t, f: t["FashionAI"]["rows"]["ASEN++"].update(mAP=64), "!FashionAI: +4.72"),
        (
            lambda t, f: t["DARN"]["rows"]["ASEN"]["per_attribute"].update({"sleeve length": 99}),
            "!DARN: CCA is best for all attributes",
        ),
        (
            lambda t, f: t["DeepFashion"]["rows"]["CCA (Type-1)"].update(mAP=10),
            "!DeepFashion: Type-2 over Type-1 by +0.4",
        ),
        (
            lambda t, f: t["DARN"]["rows"]["TF-ASEN"].update(mAP=70),
            "!ASEN beats CSN on the CNN, not on the ViT",
        ),
        (lambda t, f: t["DARN"]["rows"]["CAMNet"].update(mAP=52), "!CAMNet on DARN is below ASEN and CSN"),
        (lambda t, f: f["FashionAI"]["splits"]["train"].update(count=144_334), "!FashionAI: 180,335 images"),
    ],
)
def test_a_statement_follows_its_figures(change, says, result):
    tables, facts = copy.deepcopy(TABLES), copy.deepcopy(FACTS)
    change(tables, facts)
    holds = {each["says"]: each["holds"] for each in claims(tables, facts, result["random"])}
    assert holds[says.lstrip("!")] == (not says.startswith("!"))


def test_the_random_statement_follows_its_figures(result):
    tables, random = copy.deepcopy(TABLES), copy.deepcopy(result["random"])
    for each in random["DARN"]["per_attribute"].values():
        each["difference"] = 0.004
    holds = {each["says"]: each["holds"] for each in claims(tables, FACTS, random)}
    assert holds["random baseline on DARN: 32.26"]


def test_table_5_is_listed_as_not_checkable(result):
    rows = [row for row in result["not_checkable"] if row["table"] == "Table 5"]
    assert [row["method"] for row in rows] == list(TABLES["Zappos50K"]["rows"])
    assert all("embeddings" in row["why"] for row in rows)


def test_every_figure_of_table_1_is_checked_or_listed_as_not_checkable(result):
    left = {row["dataset"]: row for row in result["not_checkable"] if row["table"] == "Table 1"}
    figures = {
        name: {key: of for key, of in row.items() if isinstance(of, int)} for name, row in left.items()
    }
    zappos = {"attributes": 4, "classes": 34, "images": 50_025}
    assert figures == {"DeepFashion": {"images": 289_222}, "Zappos50k": zappos}
    assert "CSN's triplets" in left["Zappos50k"]["why"] and "training images" in left["DeepFashion"]["why"]
    checked = sum(each["where"] == "Table 1" for each in result["claims"])
    assert checked + 1 + 3 == 3 * len(TABLES["statistics"]["rows"])


def test_the_command_prints_it(capsys, result):
    assert main(["audit", "--paper", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == json.loads(json.dumps(result))
    assert protocol.table(result) in out
    for line in (
        "27 of 30 are the mean weighted by query",
        "61.02     59.96  61.02  ! printed is the plain mean",
        "the row's neck design figure",
        "  Table 5 (9 rows): triplet accuracy",
        "8.01      9.07   +1.06",
        "DARN            4293           3    99.93",
        "46.3%",
        "  Table 1: Zappos50k, 4 attributes, 34 classes, 50,025 images: ",
        "  Table 1: DeepFashion, 289,222 images: ",
    ):
        assert line in out
    assert max(map(len, protocol.table(result).splitlines())) <= 200


def test_it_needs_no_heavy_import():
    code = (
        "import sys; from ccakit.audit import paper; paper.audit_paper(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'matplotlib', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
