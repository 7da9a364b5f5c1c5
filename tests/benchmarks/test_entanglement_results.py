"""`benchmarks/entanglement.py`: its table, and the script at small size."""

from __future__ import annotations

import pytest

from benchmarks import entanglement


def row(model: str, seed: int, score: float, training: str = "default") -> dict:
    scores = dict.fromkeys(entanglement.SCORES, score)
    return dict(dataset="shop", model=model, training=training, seed=seed, map_weighted=90 + seed, **scores)


def test_a_line_is_the_mean_over_seeds():
    rows = [row("cca-type2", 0, 0.5), row("networks", 0, 0.9), row("cca-type2", 1, 0.7)]
    _, _, cca, networks = entanglement.markdown(rows).splitlines()
    assert cca == "| shop | `cca-type2` | default | 2 | 90.5" + 5 * " | 0.60" + " |"
    assert networks.startswith("| shop | `networks` | default | 1 | 90.0 | 0.90")


@pytest.mark.slow
def test_each_run_is_a_row_and_other_runs_stay(draw, tmp_path, capsys):
    data, results = draw(128, 20, 60), tmp_path / "entanglement.csv"
    argv = ["--data", data, "--budget", "epochs=2", "--runs", tmp_path / "runs", "--results", results]
    entanglement.main([*map(str, argv), "--models", "asen-v2"])
    entanglement.main([*map(str, argv), "--models", "asen-v2", "--seeds", "1"])
    rows = entanglement.read_csv(results)
    assert [(row["training"], row["seed"]) for row in rows] == [
        ("plain", "0"),
        ("default", "0"),
        ("plain", "1"),
        ("default", "1"),
    ]
    assert not any(float(row["score_map"]) > 1 for row in rows)  # NaN where too little was learned
    assert all(0 < float(row["map_weighted"]) <= 100 for row in rows)
    assert len({row["map_weighted"] for row in rows}) > 1
    assert entanglement.markdown(rows) in capsys.readouterr().out
