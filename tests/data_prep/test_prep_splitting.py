"""data_prep/splitting.py: splits in ASEN's proportions."""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np
import pytest
from common import DataError, deal, seeded_splits, write_prepared

from ccakit.attributes import Attributes


@pytest.mark.parametrize("shares", [(8, 1, 1), (4, 1)])
def test_dealing_keeps_the_shares_of_every_key(shares: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.repeat(np.arange(40), rng.integers(len(shares), 90, 40)))
    part = deal(keys, shares, np.random.default_rng(1))
    want = np.array(shares) / sum(shares)
    assert np.abs(np.bincount(part) - want * len(keys)).max() <= 1 + len(shares)
    for key in range(40):
        mine = np.bincount(part[keys == key], minlength=len(shares))
        floor = mine.sum() // sum(shares) * np.array(shares)
        assert (mine >= floor).all() and mine.sum() - floor.sum() < sum(shares)
    assert (part == deal(keys, shares, np.random.default_rng(1))).all()
    assert (part != deal(keys, shares, np.random.default_rng(2))).any()
    rare = deal(np.append(keys, [97, 98, 99]), shares, np.random.default_rng(1))
    assert rare[-3:].tolist() == [0, 0, 0]  # a single image goes where it can be of use
    alone = np.bincount(deal(np.arange(30), shares, rng))
    assert np.array_equal(alone, want * 30)  # as far as the shares allow


def labelled(n: int, per_image: int) -> tuple[Attributes, list[str], np.ndarray]:
    attributes = Attributes.numbered({"a": 3, "b": 4})
    rng = np.random.default_rng(5)
    rows = [
        (i, c, rng.integers(attributes.sizes[c])) for i in range(n) for c in (0, 1) for _ in range(per_image)
    ]
    return attributes, [f"img/{i}.jpg" for i in range(n)], np.array(rows)


def test_seeded_splits_have_asens_proportions(tmp_path: Path) -> None:
    attributes, names, rows = labelled(200, 1)
    rows = rows[rows[:, 0] != 7]
    prepared = seeded_splits(tmp_path, attributes, names, rows, seed=3)
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {"seed": 3})
    assert dataset.about["split"] == "seeded, not ASEN's, seed 3"
    assert "1 image left out, without a label" in dataset.findings
    seen = {name: set(split.filenames) for name, split in dataset.splits.items()}
    assert (
        sum(map(len, seen.values())) == 199 == len(set.union(*seen.values()))
        and "img/7.jpg" not in seen["train"]
    )
    assert [len(seen[name]) for name in ("train", "valid", "test")] == [159, 20, 20]
    for name in ("valid", "test"):
        split = dataset[name]
        asks, answers = (set(side[:, 0].tolist()) for side in (split.queries, split.candidates))
        assert len(asks) == 4 and len(answers) == 16 and not asks & answers
    back = {
        (split.filenames[i], c, v) for split in dataset.splits.values() for i, c, v in split.labels.tolist()
    }
    assert back == {(names[i], c, v) for i, c, v in rows.tolist()}
    report = json.loads((tmp_path / "survival.json").read_text())
    assert report["valid"] == {"listed": 20, "present": 0, "missing": dataset["valid"].filenames}
    again = seeded_splits(tmp_path, attributes, names, rows, seed=4)
    assert again.splits[0].filenames != prepared.splits[0].filenames


@pytest.mark.parametrize("per_image", [True, False])
def test_several_values(tmp_path: Path, per_image: bool) -> None:
    attributes, names, rows = labelled(150, 3)
    prepared = seeded_splits(tmp_path, attributes, names, rows, 0, per_image=per_image)
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {})
    want = {(names[i], c, v) for i, c, v in rows.tolist()}
    train = dataset["train"]
    found = {(train.filenames[i], c, v) for i, c, v in train.labels.tolist()}
    for name in ("valid", "test"):
        split = dataset[name]
        unit = split.labels[:, :1] if per_image else split.labels[:, :2]
        assert len(np.unique(unit, axis=0)) == len(unit) == len(split.filenames) * (1 if per_image else 2)
        every = np.loadtxt(tmp_path / f"label_{name}.txt", dtype=int)
        assert {tuple(row) for row in split.labels.tolist()} <= {tuple(row) for row in every.tolist()}
        found |= {(split.filenames[i], c, v) for i, c, v in every.tolist()}
        assert any("more than one value" in note and note.startswith(name) for note in dataset.findings)
    assert found == want
    one = seeded_splits(tmp_path, attributes, names, labelled(150, 1)[2], 0)
    write_prepared(tmp_path, "x", attributes, one, {})
    assert not (tmp_path / "label_test.txt").exists()  # what an earlier run left is gone


def test_images_of_one_content_stay_together(tmp_path: Path) -> None:
    attributes, names, rows = labelled(100, 1)
    for i, name in enumerate(names[:90]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"%03d" % (i % 30) + b"x" * (i % 3))
    groups = common.content_groups([tmp_path / name for name in names])
    assert len(set(groups[:90].tolist())) == 30 and len(set(groups.tolist())) == 40
    splits = seeded_splits(tmp_path, attributes, names, rows, 0, groups=groups).splits
    contents = [{(tmp_path / n).read_bytes() for n in s.filenames if (tmp_path / n).exists()} for s in splits]
    assert not contents[0] & contents[1] and not contents[0] & contents[2] and not contents[1] & contents[2]


def test_a_given_part_and_too_few_images(tmp_path: Path) -> None:
    attributes, names, rows = labelled(60, 1)
    part = np.repeat([2, 0, -1], 20)
    prepared = seeded_splits(tmp_path, attributes, names, rows, 0, part=part, how="as told")
    assert [s.name for s in prepared.splits] == ["train", "test"] and prepared.splits[1].filenames == names[
        :20
    ]
    (tmp_path / "query_valid.txt").write_text("0 0 0\n")
    dataset = write_prepared(tmp_path, "x", attributes, prepared, {})
    assert dataset.about["split"] == "as told" and not (tmp_path / "query_valid.txt").exists()
    few = np.where(np.arange(60) == 3, 1, 0)
    for bad in ({"part": few}, {"part": np.full(60, -1)}):
        with pytest.raises(DataError, match="too few images"):
            seeded_splits(tmp_path, attributes, names, rows, 0, **bad)
    with pytest.raises(DataError, match="too few images"):
        seeded_splits(tmp_path, attributes, [], rows[:0], 0)


def test_the_agreement_with_a_release(tmp_path: Path) -> None:
    attributes, names, rows = labelled(60, 1)
    dataset = write_prepared(
        tmp_path, "x", attributes, seeded_splits(tmp_path, attributes, names, rows, 0), {}
    )
    assert common.agreement(dataset, rows, names).startswith("120 of 120 labels")
    rows[:10, 2] = 3 - rows[:10, 2]
    changed = (labelled(60, 1)[2] != rows).any(axis=1).sum()
    assert common.agreement(dataset, rows, names).startswith(f"{120 - changed} of 120 labels")
