"""The benchmark's tables: means and spreads over seeds, the paper's order and figures, ablations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import ROOT

from ccakit.models import list_models
from ccakit.standings import ablations_markdown, markdown, paper_rows, spread, standings, text_table, told

ORDER = [info.name for info in list_models()]


def row(model, seed, weighted, mode="spaces", variant="", dataset="garments", status="ok", **more):
    return {"dataset": dataset, "mode": mode, "variant": variant, "model": model, "seed": seed, "status": status,
            "map_weighted": weighted, "map_macro": None if weighted is None else weighted + 1,
            "random_map_weighted": 9.5, "parameters": 1234567, "trained_parameters": 4567, "embed_ms": 1.25,
            "images_per_second": 900.0, "map:neck": None if weighted is None else weighted - 2, **more}  # fmt: skip


def test_the_ablation_table_tells_the_distance_from_the_system_as_it_is():
    rows = [row("csn", seed, 40.0 + seed) for seed in range(3)]
    rows += [row("csn", 0, 45.0, variant="lite_depth=2")]
    rows += [row("csn", 1, None, variant="lite_depth=2", status="failed: x")]
    rows += [row("asen", 0, 50.0, variant="mining=all", mode="triplets")]
    assert ablations_markdown(rows).splitlines()[2:] == [
        "| `spaces` | `csn` | nothing | 41.0 ± 1.0 |  | 3 | 4,567 |",
        "| `spaces` | `csn` | `lite_depth=2` | 45.0 (failed: x) | +4.0 | 1 | 4,567 |",
        "| `triplets` | `asen` | `mining=all` | 50.0 |  | 1 | 4,567 |",
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
    assert spread(csn, "map_weighted") == "42.3 ± 2.1" and spread(asen, "map_weighted") == "50.0"
    assert spread(csn, "map:absent") == "-"
    failed = [*rows[:2], row("csn", 2, None, status="failed: no memory")]
    line = standings(failed)[0]
    assert line["seeds"] == 2 and line["mean"]["map_weighted"] == 41.5 and line["failed"] == ["failed: no memory"]
    assert told(line) == "failed: no memory" and told(csn) == ""
    both = standings([row("csn", 0, 5.0, status="collapsed"), *failed[1:]])[0]
    assert told(both) == "1 of 3 collapsed; failed: no memory"
    nothing = standings([row("csn", 0, None, status="failed: x")])[0]
    assert nothing["seeds"] == 0 and spread(nothing, "map_weighted") == "-"


def test_systems_stand_in_the_papers_order():
    shuffled = [ORDER[i] for i in np.random.default_rng(1).permutation(len(ORDER))]
    assert shuffled != ORDER
    rows = [row(name, 0, 30.0, mode=mode, variant=variant)
            for mode in ("triplets", "spaces") for variant in ("", "residual=False") for name in shuffled]  # fmt: skip
    lines = standings(rows)
    blocks = [("triplets", ""), ("triplets", "residual=False"), ("spaces", ""), ("spaces", "residual=False")]
    assert [(line["mode"], line["variant"], line["model"]) for line in lines] == [
        (mode, variant, name) for mode, variant in blocks for name in ORDER]  # fmt: skip
    text = text_table(rows).splitlines()
    assert [line.split()[0] for line in text if line.split() and line.split()[0] in ORDER] == 4 * ORDER
    titles = [line for line in text if line.startswith("garments, mode")]
    assert titles == ["garments, mode triplets", "garments, mode triplets, residual=False", "garments, mode spaces",
                      "garments, mode spaces, residual=False"]  # fmt: skip
    assert text[-1] == "random ranking: weighted mAP 9.50"
    assert [line.split("`")[1] for line in markdown(rows).splitlines()[2:]] == ORDER
    assert text_table([]) == "no runs"


def test_the_readmes_lines():
    rows = [row("asen", 0, 50.0), row("asen", 1, 52.0), row("asen", 0, 48.0, mode="triplets"),
            row("csn", 0, 31.0, mode="triplets"), row("asen", 0, 99.0, variant="margin=1")]  # fmt: skip
    head, rule, *lines = markdown(rows).splitlines()
    budget = rows[0].get("budget", "")
    assert head == ("| system | " + ", ".join(filter(None, ("`spaces`", budget, "2 seeds"))) + " | "
                    + ", ".join(filter(None, ("`triplets`", budget, "1 seed"))) + " | trained parameters | "
                    "embedding, all K spaces | training |")  # fmt: skip
    bare = [{k: v for k, v in r.items() if k not in ("embed_ms", "images_per_second")} for r in rows]
    assert markdown(bare).splitlines()[0].endswith("| trained parameters |")
    assert rule == "|---|---|---|---|---|---|"
    assert "| `asen` | 51.0 ± 1.4 | 48.0 | 4,567 | 1.2 ms | 900 images/s |" in lines
    assert "| `csn` |  | 31.0 | 4,567 | 1.2 ms | 900 images/s |" in lines and len(lines) == 2


@pytest.mark.parametrize("dataset,csn", [("FashionAI", "53.52"), ("DARN", "50.86"), ("DeepFashion", "8.01")])
def test_the_papers_figures_stand_beside_its_own_data_sets(dataset, csn):
    names = ("triplet", "csn", "asen", "cca-type2", "networks")
    rows = [row(name, 0, 33.25, dataset=dataset) for name in names]
    text = text_table(rows)
    title, head, *lines = text.splitlines()
    assert title == f"{dataset}, mode spaces" and "paper" in head.split()
    figures = json.loads((ROOT / "ccakit" / "paper.json").read_text())[dataset]["rows"]
    cells = {line.split()[0]: line.split() for line in lines}
    for name, theirs in zip(names, ("Triplet network", "CSN", "ASEN", "CCA (Type-2)")):
        assert cells[name][1:3] == ["33.2", f"{figures[theirs]['mAP']:.2f}"]
    assert cells["csn"][2] == csn
    assert len(cells["networks"]) == len(cells["csn"]) - 1  # K networks are not in the paper
    assert len({line.index("1,234,567") for line in lines[:-1]}) == 1  # columns stay in line
    grey = f"\033[90m{csn:>8}\033[0m"
    assert grey in text_table(rows, color=True) and "\033" not in text


@pytest.mark.parametrize("dataset", ["garments", "fashion_mnist", "statistics"])
def test_other_data_sets_have_no_figures_of_the_paper(dataset):
    text = text_table([row("csn", 0, 33.25, dataset=dataset), row("cca-type2", 0, 35.0, dataset=dataset)], color=True)
    assert paper_rows(dataset) == {} and "paper" not in text and "\033" not in text


def test_a_failed_first_seed_leaves_the_others_mean():
    done = row("csn", 1, 40.0)
    failed = {"dataset": "garments", "mode": "spaces", "variant": "", "model": "csn", "seed": 0, "status": "failed: x"}
    assert standings([failed, done])[0]["mean"]["map_weighted"] == 40.0
