"""Triplet files of the layout and of CSN, their refusals, and triplet accuracy against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from csn_lists import read_csn_triplets, repeating, with_condition

from ccakit.attributes import Attributes
from ccakit.data.split import Split
from ccakit.data.triplet_lists import (
    read_triplets,
    split_triplets,
    triplets_path,
    write_triplets,
)
from ccakit.errors import DataError
from ccakit.evaluation.triplets import (
    evaluate_triplets,
    score_triplets,
    triplet_distances,
    triplet_table,
)
from ccakit.metrics import bootstrap_means

TWO = Attributes.numbered({"class": 3, "gender": 2})


def random_triplets(n: int, images: int, conditions: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, images, (n, 3)), rng.integers(0, conditions, n)])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    triplets = random_triplets(500, 40, 2)
    path = write_triplets(tmp_path, "test", triplets)
    assert path == triplets_path(tmp_path, "test") == tmp_path / "triplets_test.txt"
    back = read_triplets(path, TWO, 40)
    assert back.dtype == np.int64 and np.array_equal(back, triplets)
    assert path.read_bytes().split(b"\n")[0] == " ".join(map(str, triplets[0])).encode()


def test_csn_lists_far_before_close(tmp_path: Path) -> None:
    path = tmp_path / "class_tripletlist_test.txt"
    path.write_bytes(
        b"7 1 2\r\n0\t5\t4\t\r\n\r\n3 8 6"
    )  # anchor far close; CRLF, tabs, a blank line, no last end
    anchor, positive, negative = read_csn_triplets(path, 9).T
    assert (anchor.tolist(), positive.tolist(), negative.tolist()) == ([7, 0, 3], [2, 4, 6], [1, 5, 8])


def test_conditions_follow_the_order_of_the_lists(tmp_path: Path) -> None:
    for name, line in (("class", "0 1 2"), ("gender", "3 4 5")):
        (tmp_path / name).write_text(line)
    lists = [read_csn_triplets(tmp_path / name, 6) for name in ("class", "gender")]
    assert with_condition(lists).tolist() == [[0, 2, 1, 0], [3, 5, 4, 1]]
    assert repeating(np.array([[0, 1, 2, 0], [1, 1, 2, 0], [1, 2, 1, 0], [2, 1, 1, 0]])) == 3


BAD = {
    "three columns": ("0 1 2 0\n0 1 2\n", 2, "3 columns"),
    "five columns": ("0 1 2 0\n\n0 1 2 0 1", 3, "5 columns"),
    "image beyond the list": ("0 1 2 0\n0 1 9 0", 2, "image 9"),
    "condition beyond the attributes": ("0 1 2 2", 1, "condition 2"),
    "a word": ("0 1 2 0\n0 one 2 0", 2, "'one'"),
    "a negative number": ("0 -1 2 0", 1, "'-1'"),
    "a fraction": ("0 1.5 2 0", 1, "'1.5'"),
    "a number of 30 digits": ("0 1 2 0\n0 1 2 " + "9" * 30, 2, "999"),
    "nothing": ("\r\n\n", None, "is empty"),
    "no UTF-8": (b"0 1 2 0\n\xff\xfe", 2, "UTF-8"),
    "a superscript": ("0 1 2 \u00b2", 1, "whole number"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_is_named(tmp_path: Path, what: str) -> None:
    text, line, problem = BAD[what]
    path = tmp_path / "triplets_test.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=problem) as caught:
        read_triplets(path, TWO, 9)
    assert caught.value.path == path and caught.value.line == line and caught.value.remedy


def test_csn_lists_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("0 1 2\n0 1 2 0\n")
    with pytest.raises(DataError, match="line 2: has 4 columns, not 3"):
        read_csn_triplets(path, 9)
    path.write_text("0 1 2\n0 3 2\n")
    with pytest.raises(DataError, match="line 2: image 3 is out of range"):
        read_csn_triplets(path, 3)
    with pytest.raises(DataError, match="is missing"):
        read_csn_triplets(tmp_path / "none.txt", 3)


def test_malformed_files_end_in_one_error_or_in_triplets(tmp_path: Path) -> None:
    rng, path, read = np.random.default_rng(0), tmp_path / "triplets_test.txt", 0
    pieces = [
        "0",
        "1",
        "8",
        "9",
        "-3",
        "x",
        "1e3",
        "\t",
        " ",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\x00",
        "é",
        "1" * 25,
        "\ufeff",
    ]
    for _ in range(1500):
        weights = np.array([8, 8, 3, 1, 0.2, 0.2, 0.2, 2, 9, 9, 5, 2, 1, 0.1, 0.1, 0.1, 0.1])
        size = int(rng.integers(0, 40))
        path.write_bytes("".join(rng.choice(pieces, size, p=weights / weights.sum())).encode())
        try:
            rows = read_triplets(path, TWO, 9)
        except DataError as error:
            assert error.path == path
            continue
        read += 1
        assert rows.shape[1] == 4 and len(rows) and (rows[:, :3] < 9).all() and (rows[:, 3] < 2).all()
    assert read  # some of them were valid


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for rows in (np.zeros((0, 4), int), np.zeros((2, 3), int), np.zeros((2, 4)), -np.ones((1, 4), int)):
        with pytest.raises(DataError, match="would hold"):
            write_triplets(tmp_path, "test", rows)
    with pytest.raises(ValueError, match="no such split"):
        write_triplets(tmp_path, "val", random_triplets(3, 5, 2))
    assert not list(tmp_path.iterdir())


def test_a_splits_own_triplets(tmp_path: Path) -> None:
    split = Split("test", tmp_path, TWO, ["a.png", "b.png", "c.png"], np.array([[0, 0, 0]]))
    assert split_triplets(split) is None
    write_triplets(tmp_path, "test", np.array([[0, 1, 2, 1]]))
    assert split_triplets(split).tolist() == [[0, 1, 2, 1]]
    write_triplets(tmp_path, "test", np.array([[0, 1, 3, 1]]))
    with pytest.raises(DataError, match="image 3"):
        split_triplets(split)


class Table(torch.nn.Module):
    """A model that looks its spaces up: images are their indices."""

    def __init__(self, spaces: np.ndarray) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.from_numpy(spaces))
        self.conditions, self.embed_dim = spaces.shape[1:]
        self.seen: list[int] = []

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += batch.tolist()
        return batch

    def spaces(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table[tokens]


class Indices:
    """Inputs that are their indices."""

    cached = False

    def __init__(self, count: int) -> None:
        self.count, self.unreadable = count, {}

    def __len__(self) -> int:
        return self.count

    def load(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(indices))


def unit_spaces(images: int, conditions: int, width: int) -> np.ndarray:
    spaces = np.random.default_rng(1).normal(size=(images, conditions, width)).astype(np.float32)
    return spaces / np.linalg.norm(spaces, axis=2, keepdims=True)


def test_accuracy_is_the_plain_loops() -> None:
    spaces = unit_spaces(30, 3, 5)
    triplets = random_triplets(20_000, 25, 2)  # several blocks; five images and one condition are in none
    model = Table(spaces)
    scores = evaluate_triplets(
        model, Indices(30), triplets, ("class", "gender", "heel"), repeats=20, progress=None
    )
    right: dict[int, list[bool]] = {0: [], 1: []}
    for anchor, positive, negative, condition in triplets.tolist():
        a, p, n = (spaces[i, condition] for i in (anchor, positive, negative))
        right[condition].append(float(a @ p) > float(a @ n) and positive != negative)
    want = {name: 100 * np.mean(right[c]) for c, name in enumerate(("class", "gender"))}
    assert scores["triplet_accuracy_per_attribute"] == pytest.approx(want, abs=0.1)
    assert scores["triplet_accuracy"] == pytest.approx(100 * np.mean(right[0] + right[1]), abs=0.1)
    assert scores["triplet_accuracy_macro"] == pytest.approx(np.mean(list(want.values())), abs=0.1)
    assert scores["triplets"] == {"class": len(right[0]), "gender": len(right[1])}
    assert sorted(model.seen) == list(range(25))  # each image that occurs, once


def test_distances_are_cosine_distances_under_the_triplets_condition() -> None:
    spaces, triplets = unit_spaces(6, 2, 4), random_triplets(50, 6, 2)
    d_ap, d_an = triplet_distances(spaces, triplets)
    for row, (a, p, n, c) in enumerate(triplets.tolist()):
        assert d_ap[row] == pytest.approx(1 - spaces[a, c] @ spaces[p, c], abs=1e-6)
        assert d_an[row] == pytest.approx(1 - spaces[a, c] @ spaces[n, c], abs=1e-6)


def test_a_collapsed_model_earns_nothing() -> None:
    one = np.ones((9, 2, 1), np.float32)
    scores = evaluate_triplets(
        Table(one), Indices(9), random_triplets(50, 9, 2), ("a", "b"), repeats=5, progress=None
    )
    assert scores["triplet_accuracy"] == 0 and scores["triplet_intervals"]["triplet_accuracy"] == [0, 0]


def test_intervals_cover_and_anchors_stand_together() -> None:
    rng = np.random.default_rng(0)
    anchors = np.repeat(np.arange(50), 20)
    alone = rng.random(1000) < 0.8  # each triplet by itself
    together = np.repeat(rng.random(50) < 0.8, 20)  # all triplets of an anchor alike
    assert np.std(bootstrap_means(alone, anchors)) == pytest.approx(np.sqrt(0.16 / 1000), rel=0.35)
    assert np.std(bootstrap_means(together, anchors)) == pytest.approx(np.sqrt(0.16 / 50), rel=0.35)
    triplets = np.column_stack([anchors, anchors, anchors, anchors % 2])
    scores = score_triplets(np.where(alone, 0.1, 0.3), np.full(1000, 0.2), triplets, ("a", "b"))
    assert scores == score_triplets(np.where(alone, 0.1, 0.3), np.full(1000, 0.2), triplets, ("a", "b"))
    for key in ("triplet_accuracy", "triplet_accuracy_macro"):
        low, high = scores["triplet_intervals"][key]
        assert low < scores[key] < high and high - low < 8
    text = triplet_table(scores, "CSN on shoes, test")
    assert (
        "all triplets" in text and f"{scores['triplet_accuracy']:.2f}" in text and len(text.splitlines()) == 7
    )


def test_triplets_of_unreadable_images_are_left_out_and_counted() -> None:
    spaces, triplets = unit_spaces(12, 2, 4), random_triplets(300, 12, 2)
    inputs = Indices(12)
    inputs.unreadable = {3: "is broken", 7: "is missing"}
    scores = evaluate_triplets(Table(spaces), inputs, triplets, ("a", "b"), repeats=5, progress=None)
    readable = triplets[~np.isin(triplets[:, :3], [3, 7]).any(axis=1)]
    want = evaluate_triplets(Table(spaces), Indices(12), readable, ("a", "b"), repeats=5, progress=None)
    assert scores["triplets_left_out"] == 300 - len(readable) > 0 == want["triplets_left_out"]
    assert scores == {**want, "triplets_left_out": 300 - len(readable)}
    inputs.unreadable = dict.fromkeys(range(12), "is broken")
    with pytest.raises(ValueError, match="cannot be read"):
        evaluate_triplets(Table(spaces), inputs, triplets, ("a", "b"), progress=None)


def test_triplets_that_cannot_be_scored() -> None:
    for bad in (np.nan, 2.0):
        with pytest.raises(ValueError, match="not L2-normalised"):
            evaluate_triplets(
                Table(bad * unit_spaces(4, 1, 3)), Indices(4), np.array([[0, 1, 2, 0]]), ("only",)
            )
    model = Table(unit_spaces(4, 1, 3))
    for triplets in (np.zeros((0, 4), int), np.array([[0, 1, 2, 1]])):
        with pytest.raises(ValueError, match="triplets for 1 conditions"):
            evaluate_triplets(model, Indices(4), triplets, ("only",))
