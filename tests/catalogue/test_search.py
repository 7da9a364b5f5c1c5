"""Searching: against brute force in NumPy, filters, weights, labels, and errors that say what to do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from catalogue_shop import COUNT

import ccakit
from ccakit.catalogue.store import open_table
from ccakit.cli import main
from ccakit.errors import DataError


@pytest.fixture(scope="module")
def catalogue(filled):
    return ccakit.open_catalogue(filled / "catalogue", run=filled / "run", images=filled / "photos")


@pytest.fixture(scope="module")
def stored(filled) -> tuple[list[str], np.ndarray]:
    """All ids and their vectors (n, K, E), as they lie there, scaled to length 1."""
    rows = open_table(str(filled / "catalogue"))[0].to_arrow().to_pylist()
    spaces = np.array([[each["space_neck_design"], each["space_tone"]] for each in rows], np.float64)
    return [each["id"] for each in rows], spaces / np.linalg.norm(spaces, axis=2, keepdims=True)


def by_hand(ids, score, own=None) -> list[tuple[str, float]]:
    order = sorted((-value, name) for name, value in zip(ids, score) if name != own)
    return [(name, -value) for value, name in order]


def check(frame, expected) -> None:
    assert frame["id"].tolist() == [name for name, _ in expected[: len(frame)]]
    assert np.allclose(frame["cosine"], [value for _, value in expected[: len(frame)]], atol=1e-6)


@pytest.mark.parametrize("condition", ["tone", "Neck design", 0])
def test_one_condition_is_brute_force(catalogue, stored, condition):
    ids, spaces = stored
    c = catalogue.condition(condition)
    expected = by_hand(ids, spaces[:, c] @ spaces[3, c], ids[3])
    check(catalogue.search(id=ids[3], conditions=condition, k=7), expected)


def test_weights_and_what_it_shall_not_be_like_are_brute_force(catalogue, stored, filled):
    ids, spaces = stored
    other = ids[9]
    score = 2 * spaces[:, 0] @ spaces[3, 0] + 0.5 * spaces[:, 1] @ spaces[3, 1]
    check(
        catalogue.search(id=ids[3], conditions={"neck design": 2, "tone": 0.5}, k=COUNT),
        by_hand(ids, score / 2.5, ids[3]),
    )
    against = [(catalogue.spaces(other), "tone", 1.5)]
    frame = catalogue.search(id=ids[3], conditions={0: 2, 1: 0.5}, not_like=against, k=COUNT)
    check(frame, by_hand(ids, (score - 1.5 * spaces[:, 1] @ spaces[9, 1]) / 4, ids[3]))


def test_the_union_of_the_nearest_is_scored_exactly(catalogue, stored):
    """With a small pool, candidates are the 2 nearest in either space, and no others."""
    ids, spaces = stored
    frame = catalogue.search(catalogue.spaces(ids[3]), {0: 1, 1: 1}, k=2, pool=2)
    cosines = np.einsum("nke,ke->nk", spaces, spaces[3])
    near = {ids[row] for c in (0, 1) for row in np.argsort(-cosines[:, c])[:2]}
    best = sorted(near, key=lambda name: -cosines[ids.index(name)].mean())[:2]
    assert frame["id"].tolist() == best


def test_a_picture_finds_itself(catalogue, filled):
    frame = catalogue.search(filled / "photos" / "pic 11.png", "tone", k=1)
    assert frame["id"].tolist() == ["pic 11.png"] and frame["cosine"][0] > 0.999
    assert catalogue.picture("pic 11.png") == filled / "photos" / "pic 11.png"


@pytest.mark.parametrize(
    "where,passes",
    [
        ("price < 15", lambda i: 10.5 + i < 15),
        ("brand = 'x' AND price > 20", lambda i: i % 2 == 0 and i > 9),
        ("`Unit Weight` IN (3, 4)", lambda i: i in (3, 4)),
        ("tone IS NULL", lambda i: i % 3 == 2),
        ("path LIKE '%7.png'", lambda i: i % 10 == 7),
        ("price < 15 -- cheap", lambda i: 10.5 + i < 15),
    ],
)
def test_filters(catalogue, where, passes):
    frame = catalogue.search(id="pic 23.png", conditions="tone", where=where, k=99)
    assert set(frame["id"]) == {f"pic {i:02d}.png" for i in range(COUNT - 1) if passes(i)}


@pytest.mark.parametrize(
    "where,problem",
    [
        ("cost < 3", "No field named cost; the columns are: id, path, price, brand, tone, `Unit Weight`"),
        ("price <", "sql parser error"),
        ("price < 'x'", "could not convert"),
        ("brand = 'x", "Unterminated string"),
        ("price < 3; DROP TABLE items", "left unread"),
        ("1 = 1) OR (1 = 1", "left unread"),
        ("price < 3 banana", "the columns are"),
        ("price IN (SELECT price FROM items)", "not supported"),
        ("price < 50 LIMIT 1", "Error parsing"),
        ("price < 50 ORDER BY price", "Error parsing"),
        (5, "is a filter in SQL"),
    ],
)
def test_a_filter_that_is_none_is_one_line(catalogue, where, problem):
    with pytest.raises(ValueError) as caught:
        catalogue.search(id="pic 00.png", conditions="tone", where=where)
    text = str(caught.value)
    assert problem in text and "\n" not in text and "Make it again" not in text
    assert "the columns are: id, path, price" in text or where == 5
    assert "/" not in text  # no place in the engine's own code


def test_labels_are_the_tables_and_tagged_ones_are_marked(catalogue):
    frame = catalogue.search(id="pic 23.png", conditions="tone", k=99).set_index("id")
    assert frame.loc["pic 00.png", "label_tone"] == "dark" and frame.loc["pic 02.png", "label_tone"] is None
    rows = frame.reset_index()[["tone"]]
    filled = rows.fillna("light").assign(tone_confidence=rows["tone"].isna().map({True: 0.9, False: None}))
    labels = catalogue.labels(filled, catalogue.condition("tone"))
    assert set(labels) == {"dark", "light", "light (tagged)"}
    assert [label.endswith("(tagged)") for label in labels] == rows["tone"].isna().tolist()


@pytest.mark.parametrize(
    "options,problem",
    [
        (dict(conditions="tone"), "give a picture, or the id of an item"),
        (dict(conditions=(), id="pic 00.png"), "give a condition; there are: neck_design, tone"),
        (dict(conditions="sleeve", id="pic 00.png"), "no condition 'sleeve'; there are: 0: neck_design"),
        (dict(conditions={"tone": 0}, id="pic 00.png"), "a weight is more than 0"),
        (dict(conditions={"tone": float("nan")}, id="pic 00.png"), "a weight is more than 0"),
        (dict(conditions="tone", id="it's"), 'has no item "it\'s"'),
        (dict(conditions={"tone": 1e308}, id="pic 00.png"), "at most 1000000"),
        (dict(conditions={"tone": "much"}, id="pic 00.png"), "a weight is more than 0"),
        (dict(conditions=["tone", "tone"], id="pic 00.png"), "the condition 'tone' is given twice"),
        (dict(conditions={"tone": 1, 1: 2}, id="pic 00.png"), "the condition 'tone' is given twice"),
        (dict(conditions=[("tone", 2)], id="pic 00.png"), "a condition is a name or an index"),
        (dict(conditions="tone", id=3), "an id is text"),
        (dict(conditions="tone", id="pic 00.png", k=0), "k is a whole number from 1 on, not 0"),
        (dict(conditions="tone", id="pic 00.png", k=-1), "k is a whole number from 1 on, not -1"),
        (dict(conditions="tone", id="pic 00.png", k=2.5), "k is a whole number"),
        (dict(conditions="tone", id="pic 00.png", k="3"), "k is a whole number"),
        (dict(conditions="tone", picture=np.full((2, 32), np.nan)), "have no direction"),
        (dict(conditions="tone", picture=np.zeros((2, 32))), "have no direction"),
        (dict(conditions="tone", picture=np.ones((2, 5))), "are not \\(K, E\\) = \\(2, 32\\)"),
    ],
)
def test_other_errors_are_one_line(catalogue, options, problem):
    with pytest.raises(ValueError, match=problem):
        catalogue.search(**options)


@pytest.mark.parametrize("conditions", ["tone", {"tone": 1, "neck_design": 1}])
def test_more_results_than_there_are_items_are_all_items(catalogue, conditions):
    assert len(catalogue.search(id="pic 00.png", conditions=conditions, k=10**12)) == COUNT - 1


def test_a_model_that_is_not_there_any_more_is_told(filled, tmp_path):
    catalogue = ccakit.open_catalogue(filled / "catalogue", run=tmp_path / "gone")
    with pytest.raises(DataError, match="gone: is not there any more; .* Say where it lies now: --run"):
        catalogue.search(filled / "photos" / "pic 11.png", "tone")


def test_conditions_that_are_given_twice_are_refused(filled, capsys):
    words = ["search", "--catalogue", str(filled / "catalogue"), "--id", "pic 00.png"]
    for twice in (["--condition", "tone", "--condition", "neck_design"], ["--condition", "tone=1", "tone=2"]):
        assert main([*words, *twice]) == 1
        error = capsys.readouterr().err
        assert "given twice" in error and error.count("\n") == 1


def test_the_command_prints_json_and_draws(shop, capsys):
    out = shop / "why.png"
    words = ["search", "--catalogue", str(shop / "catalogue"), "--image", str(shop / "photos" / "pic 03.png")]
    words += [
        "--condition",
        "tone=2",
        "neck_design",
        "--not-like",
        f"{shop / 'photos' / 'pic 09.png'}:tone=0.5",
    ]
    words += ["--where", "price < 40", "-k", "4", "--explain", str(out), "--json"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["query"].endswith("pic 03.png") and result["conditions"] == {
        "tone": 2.0,
        "neck_design": 1.0,
    }
    assert len(result["results"]) == 4 and result["results"][0].keys() == {"id", "path", "cosine", "columns"}
    assert result["results"][0]["columns"].keys() == {"price", "brand", "tone", "Unit Weight"}
    assert out.stat().st_size > 1000 and lines[0].split() == [
        "item",
        "cosine",
        "tone",
        "cosine",
        "neck",
        "design",
        "cosine",
    ]


def test_a_moved_model_or_another_one(filled, tmp_path):
    from saved_models import saved_model

    from ccakit.models.saved import save_model

    save_model(tmp_path, saved_model(wv="each"))
    catalogue = ccakit.open_catalogue(filled / "catalogue", run=tmp_path)
    with pytest.raises(DataError, match="is another model"):
        catalogue.search(filled / "photos" / "pic 03.png", "tone")
