"""The benchmark's tables: means and spreads over seeds, the paper's order and figures, ablations."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from places import ROOT

from ccakit.audit.tables import paper_rows
from ccakit.benchmark.results import read_rows
from ccakit.benchmark.standings import (
    ablations_markdown,
    markdown,
    mean_and_std,
    problems,
    report,
    standings,
)
from ccakit.models.registry import list_models

ORDER = [info.name for info in list_models()]
PAPER = json.loads((ROOT / "ccakit/audit/paper.json").read_text())
IN_PAPER = {
    "triplet": "Triplet network",
    "csn": "CSN",
    "asen": "ASEN",
    "camnet": "CAMNet",
    "m2fashion": "M2Fashion",
    "asen-pp": "ASEN++",
    "adde": "ADDE-C",
    "tf-csn": "TF-CSN",
    "tf-asen": "TF-ASEN",
    "cca-type1": "CCA (Type-1)",
    "cca-type2": "CCA (Type-2)",
}


def row(model, seed, weighted, mode="spaces", variant="", dataset="garments", status="ok", **more):
    return {
        "dataset": dataset,
        "mode": mode,
        "variant": variant,
        "model": model,
        "seed": seed,
        "status": status,
        "map_weighted": weighted,
        "map_macro": None if weighted is None else weighted + 1,
        "random_map_weighted": 9.5,
        "parameters": 1234567,
        "trained_parameters": 4567,
        "embed_ms": 1.25,
        "images_per_second": 900.0,
        "map:neck": None if weighted is None else weighted - 2,
        **more,
    }


def test_the_ablation_table_holds_the_gain_over_the_system_as_it_is():
    rows = [row("csn", seed, 40.0 + seed) for seed in range(3)]
    rows += [row("csn", 0, 45.0, variant="lite_depth=2")]
    rows += [row("csn", 1, None, variant="lite_depth=2", status="failed: x")]
    rows += [row("asen", 0, 50.0, variant="mining=all", mode="triplets")]
    rows += [row("csn", 0, 30.0, variant="plain"), row("csn", 0, 32.5, variant="plain margin=1")]
    assert ablations_markdown(rows).splitlines()[2:] == [
        "| `spaces` | `csn` | default | nothing | 41.0 ± 1.0 |  | 3 | 4,567 |",
        "| `spaces` | `csn` | default | `lite_depth=2` | 45.0 (failed: x) | +4.0 | 1 | 4,567 |",
        "| `spaces` | `csn` | `plain` | nothing | 30.0 |  | 1 | 4,567 |",
        "| `spaces` | `csn` | `plain` | `margin=1` | 32.5 | +2.5 | 1 | 4,567 |",
        "| `triplets` | `asen` | default | `mining=all` | 50.0 |  | 1 | 4,567 |",
    ]


def test_means_and_spreads_over_seeds():
    rows = [row("csn", 0, 40.0), row("csn", 1, 43.0), row("csn", 2, 44.0), row("asen", 0, 50.0)]
    csn, asen = standings(rows)
    assert csn["model"] == "csn" and csn["seeds"] == 3 and asen["seeds"] == 1
    mean = (40 + 43 + 44) / 3
    std = (((40 - mean) ** 2 + (43 - mean) ** 2 + (44 - mean) ** 2) / 2) ** 0.5
    for name, shift in (("map_weighted", 0), ("map_macro", 1), ("map:neck", -2)):
        assert csn["mean"][name] == pytest.approx(mean + shift) and csn["std"][name] == pytest.approx(std)
    assert asen["mean"]["map_weighted"] == 50 and np.isnan(asen["std"]["map_weighted"])
    assert mean_and_std(csn, "map_weighted") == "42.3 ± 2.1" and mean_and_std(asen, "map_weighted") == "50.0"
    assert mean_and_std(csn, "map:absent") == "-"
    failed = [*rows[:2], row("csn", 2, None, status="failed: no memory")]
    line = standings(failed)[0]
    assert (
        line["seeds"] == 2
        and line["mean"]["map_weighted"] == 41.5
        and line["failed"] == ["failed: no memory"]
    )
    assert problems(line) == "failed: no memory" and problems(csn) == ""
    both = standings([row("csn", 0, 5.0, status="collapsed"), *failed[1:]])[0]
    assert problems(both) == "1 of 3 collapsed; failed: no memory"
    nothing = standings([row("csn", 0, None, status="failed: x")])[0]
    assert nothing["seeds"] == 0 and mean_and_std(nothing, "map_weighted") == "-"


def test_systems_stand_in_the_papers_order():
    shuffled = [ORDER[i] for i in np.random.default_rng(1).permutation(len(ORDER))]
    assert shuffled != ORDER
    rows = [
        row(name, 0, 30.0, mode=mode, variant=variant)
        for mode in ("triplets", "spaces")
        for variant in ("", "residual=False")
        for name in shuffled
    ]
    lines = standings(rows)
    blocks = [("triplets", ""), ("triplets", "residual=False"), ("spaces", ""), ("spaces", "residual=False")]
    assert [(line["mode"], line["variant"], line["model"]) for line in lines] == [
        (mode, variant, name) for mode, variant in blocks for name in ORDER
    ]
    text = report(rows).splitlines()
    assert [line.split()[0] for line in text if line.split() and line.split()[0] in ORDER] == 4 * 2 * ORDER
    titles = [line for line in text if line.startswith("garments, mode")]
    assert titles == [
        "garments, mode triplets",
        "garments, mode triplets, residual=False",
        "garments, mode spaces",
        "garments, mode spaces, residual=False",
    ]
    assert text[-1] == "random ranking: weighted mAP 9.50"
    assert [line.split("`")[1] for line in markdown(rows).splitlines()[2:]] == ORDER
    assert report([]) == "no runs"


def test_the_readmes_lines():
    rows = [
        row("asen", 0, 50.0),
        row("asen", 1, 52.0),
        row("asen", 0, 48.0, mode="triplets"),
        row("csn", 0, 31.0, mode="triplets"),
        {**row("asen", 0, 99.0, variant="margin=1"), "trained_parameters": 5_000},
    ]
    head, rule, *lines = markdown(rows).splitlines()
    budget = rows[0].get("budget", "")
    assert head == (
        "| system | "
        + ", ".join(filter(None, ("`spaces`", budget, "2 seeds")))
        + " | "
        + ", ".join(filter(None, ("`spaces`, `margin=1`", budget, "1 seed")))
        + " | "
        + ", ".join(filter(None, ("`triplets`", budget, "1 seed")))
        + " | trained parameters | "
        "embedding, all K spaces | training |"
    )
    bare = [{k: v for k, v in r.items() if k not in ("embed_ms", "images_per_second")} for r in rows]
    assert markdown(bare).splitlines()[0].endswith("| trained parameters |")
    assert rule == "|---|---|---|---|---|---|---|"
    assert "| `asen` | 51.0 ± 1.4 | 99.0 | 48.0 | 4,567; 5,000 | 1.2 ms | 900 images/s |" in lines
    assert "| `csn` |  |  | 31.0 | 4,567 | 1.2 ms | 900 images/s |" in lines and len(lines) == 2


@pytest.mark.parametrize("dataset", ["FashionAI", "DARN", "DeepFashion", "Zappos50K"])
def test_the_order_is_that_of_the_papers_tables(dataset):
    printed = [title for title in PAPER[dataset]["rows"] if title != "Random baseline"]
    rows = [row(name, 0, 30.0, dataset=dataset) for name in sorted(IN_PAPER) if IN_PAPER[name] in printed]
    assert [IN_PAPER[line["model"]] for line in standings(rows)] == printed and len(printed) >= 8
    shown = [line.split("`")[1] for line in markdown(rows).splitlines()[2:]]
    assert [IN_PAPER[name] for name in shown] == printed


def blocks(text):
    """The heads and cells of the overall and of the attributes' lines; below a system's are those of "SYSTEM
    paper" and "SYSTEM difference"."""
    found = []
    for part in text.split("\n\n")[:2]:
        lines = part.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("system"))
        cells, name = {}, ""
        for line in lines[head + 1 :]:
            first, *rest = re.split(r"\s{2,}", line.strip())
            below = first in ("paper", "difference")
            name = name if below else first
            cells[f"{name} {first}" if below else name] = rest
        found.append((re.split(r"\s{2,}", lines[head]), cells))
    return found


@pytest.mark.parametrize("dataset", ["FashionAI", "DARN", "DeepFashion"])
def test_the_papers_figures_stand_beside_its_own_data_sets(dataset):
    printed, attributes = PAPER[dataset]["rows"], PAPER[dataset]["attributes"]
    each = {f"map:{name}": 20.0 + i for i, name in enumerate(attributes)}
    rows = [
        row(name, seed, 33.25 + seed, dataset=dataset, trunk="resnet50", **each)
        for name in ORDER
        for seed in (0, 1)
    ]
    text = report(rows)
    (head, overall), (columns, of_attributes) = blocks(text)
    assert text.splitlines()[0] == f"{dataset}, mode spaces"
    assert head[:5] == ["system", "weighted mAP", "paper", "difference", "macro mAP"]
    assert columns == ["system", "neck", *(name.replace("_", " ") for name in attributes)]
    assert len({line.index("1,234,567") for line in text.splitlines() if "1,234,567" in line}) == 1  # in line
    for name in ORDER:
        theirs = printed.get(IN_PAPER.get(name))
        beside = [f"{theirs['mAP']:.2f}", f"{33.75 - theirs['mAP']:+.2f}"] if theirs else []
        figures = ["33.8 ± 0.7", *beside, "34.8 ± 0.7"]
        assert overall[name][: len(figures)] == figures and (f"{name} paper" in of_attributes) == bool(theirs)
        assert of_attributes[name] == ["31.8 ± 0.7", *(f"{20 + i:.1f} ± 0.0" for i in range(len(attributes)))]
        if theirs:
            figures = [theirs["per_attribute"][name] for name in attributes]
            assert of_attributes[f"{name} paper"] == [f"{figure:.2f}" for figure in figures]
            apart = [f"{20 + i - figure:+.2f}" for i, figure in enumerate(figures)]
            assert of_attributes[f"{name} difference"] == apart
    assert sum(name in IN_PAPER for name in ORDER) == 11 and "\033" not in text
    csn, table = f"{printed['CSN']['mAP']:.2f}", markdown(rows).splitlines()
    assert f"\033[90m{csn}\033[0m" in report(rows, color=True)
    assert table[0].split(" | ")[2] == "paper" and table[4].startswith(f"| `csn` | 33.8 ± 0.7 | {csn} |")


def test_a_figure_of_the_paper_stands_beside_its_own_system_only():
    def beside(name, **more):
        (_, overall), (_, each) = blocks(report([row(name, 0, 33.0, dataset="FashionAI", **more)]))
        name += "*" * more.get("shares_trunk", False) * (name == "asen-pp")
        return overall[name][1] == f"{PAPER['FashionAI']['rows'][IN_PAPER[name.strip('*')]]['mAP']:.2f}", len(
            each
        ) > 1

    assert beside("csn", trunk="lite") == beside("asen", trunk="lite") == (True, True)
    assert beside("triplet", trunk="resnet50") == beside("triplet", trunk="efficientnet_b0") == (True, True)
    for trunk in ("lite", "vit_base_r50_s16_224"):  # theirs is a CNN
        assert beside("triplet", trunk=trunk) == (False, False)
    assert beside("asen-pp", trunk="resnet50", shares_trunk=False) == (True, True)
    assert beside("asen-pp", trunk="resnet50", shares_trunk=True) == (False, False)
    titles = [info.title for info in list_models()]
    assert len(set(titles)) == len(titles)
    assert {info.name: info.title for info in list_models() if info.name in IN_PAPER} == IN_PAPER


@pytest.mark.parametrize("name", ["Zappos50K", "UT-Zappos50K", "zappos50k"])
def test_zappos_has_triplet_accuracies(name):
    rows = [row("csn", seed, 40.0, dataset=name, triplet_accuracy=80.0 + 2 * seed) for seed in range(3)]
    rows += [
        row("adde", 0, 41.0, dataset=name, triplet_accuracy=85.5),
        row("camnet", 0, 42.0, dataset=name),
        row("cca-type1", 0, None, dataset=name, status="failed: x"),
    ]
    head, overall = blocks(report(rows))[0]
    assert head[:6] == ["system", "weighted mAP", "macro mAP", "triplet accuracy", "paper", "difference"]
    assert overall["csn"][:5] == ["40.0 ± 0.0", "41.0 ± 0.0", "82.0 ± 2.0", "89.27", "-7.27"]
    assert overall["adde"][:5] == ["41.0", "42.0", "85.5", "91.37", "-5.87"] and overall["camnet"][2] == "-"
    assert "\033[90m89.27\033[0m" in report(rows, color=True)
    head, _, *lines = markdown(rows).splitlines()
    assert head.split(" | ")[:4] == ["| system", "`spaces`, 0-3 seeds", "`spaces`, triplet accuracy", "paper"]
    assert lines[0].startswith("| `csn` | 40.0 ± 0.0 | 82.0 ± 2.0 | 89.27 |")
    assert lines[3].startswith("| `cca-type1` | - (failed: x) |  | 94.98 |")
    each = [{**row, "triplets:toe": 70.0, "triplets:heel": None} for row in rows[:3]]
    lines = report(each).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("triplet accuracy"))
    assert lines[at].split() == ["triplet", "accuracy", "toe"]
    assert lines[at + 1].split() == ["csn", "70.0", "±", "0.0"]


@pytest.mark.parametrize(
    "name", ["FashionAI", "fashionai", "Fashion-AI", "Deep Fashion", "darn", "UT-Zappos50K"]
)
def test_the_papers_data_sets_are_known_by_any_spelling(name):
    plain = name.replace("-", "").replace(" ", "").lower().removeprefix("ut")
    assert paper_rows(name) == next(PAPER[known]["rows"] for known in PAPER if known.lower() == plain)


def test_asen_pp_on_kept_features_is_marked():
    rows = [
        row("asen-pp", 0, 30.0, shares_trunk=True),
        row("asen", 0, 31.0, shares_trunk=True),
        row("networks", 0, 32.0, shares_trunk=False),
    ]
    text, table = report(rows).splitlines(), markdown(rows).splitlines()
    assert [line.split()[0] for line in text if "*" in line] == ["asen-pp*", "asen-pp*", "*"]
    assert [
        line
        for line in text
        if line.startswith("* asen-pp: not the authors' ASEN++: crops are cut from the map")
    ]
    assert [line.split("|")[1].strip() for line in table[2:5]] == ["`networks`", "`asen`", r"`asen-pp` \*"]
    assert (
        table[5] == "" and table[6].startswith(r"\* `asen-pp`: not the authors' ASEN++") and len(table) == 7
    )
    theirs = [row("asen-pp", 0, 30.0, shares_trunk=False), *rows[1:]]
    assert "*" not in report(theirs) and "*" not in markdown(theirs)


def test_runs_at_chance_are_shown_as_that():
    rows = [
        row("csn", 0, 10.4),
        row("csn", 1, 40.0),
        row("csn", 2, 9.6, status="at chance"),
        row("asen", 0, 10.5),
        row("adde", 0, 9.5, status="collapsed"),
    ]
    wrong = {line["model"]: problems(line) for line in standings(rows)}
    assert wrong == {
        "csn": "2 of 3 at chance",
        "asen": "",
        "adde": "1 of 1 collapsed",
    }  # random: 9.5, and a point more
    for table in (report(rows), markdown(rows), ablations_markdown(rows)):
        assert [line for line in table.splitlines() if "at chance" in line] and "2 of 3 at chance" in table
    scratch = [line for line in standings(read_rows(ROOT / "results/ablations.csv")) if problems(line)]
    assert [line["variant"].split()[-1] for line in scratch] == ["pretrained=false"]
    assert problems(scratch[0]) == "1 of 1 at chance"


def test_unreadable_images_are_counted():
    rows = [
        row("csn", 0, 40.0, unreadable=2),
        row("csn", 1, 40.0, unreadable=0),
        row("asen", 0, 40.0, unreadable=None),
    ]
    line = "unreadable images, left out of training and test: up to 2 a run"
    assert line in report(rows).splitlines() and "unreadable" not in report(rows[1:])


@pytest.mark.parametrize("dataset", ["garments", "fashion_mnist", "statistics"])
def test_other_data_sets_have_no_figures_of_the_paper(dataset):
    text = report(
        [row("csn", 0, 33.25, dataset=dataset), row("cca-type2", 0, 35.0, dataset=dataset)], color=True
    )
    assert paper_rows(dataset) == {} and "paper" not in text and "\033" not in text


def test_where_all_runs_failed_the_table_says_so():
    rows = [dict(dataset="d", mode="spaces", variant="", model="csn", seed=0, status="failed: no image")]
    (line,) = standings(rows)
    assert line["seeds"] == 0 and line["failed"] == ["failed: no image"]
    assert "failed: no image" in report(rows)


def test_a_failed_first_seed_leaves_the_others_mean():
    done = row("csn", 1, 40.0)
    failed = {
        "dataset": "garments",
        "mode": "spaces",
        "variant": "",
        "model": "csn",
        "seed": 0,
        "status": "failed: x",
    }
    assert standings([failed, done])[0]["mean"]["map_weighted"] == 40.0
