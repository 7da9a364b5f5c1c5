"""`ccakit tag` on a small table: what is filled and what is not, and that nothing else changes."""

from __future__ import annotations

import csv
import json

import pytest

from ccakit.cli import main
from ccakit.data.layout import read_dataset


@pytest.fixture(scope="module")
def shop(draw, tmp_path_factory):
    """A run of a few steps, and a table of its test images with every third cell empty."""
    data = draw(120, 60, 60)
    folder = data.parent
    small = ["--image-size", "32", "--lite-width", "32", "--lite-heads", "2", "--batch-size", "8"]
    assert (
        main(["train", "--data", str(data), "--out", str(folder / "run"), *small, "--budget", "steps=8"]) == 0
    )
    split = read_dataset(data, splits=("test",))["test"]
    labels, names = split.label_matrix(), split.attributes.names
    rows = [["image", "price", *names]]
    for image, name in enumerate(split.filenames):
        cells = []
        for condition in range(len(names)):
            label = int(labels[image, condition])
            empty = label < 0 or (image + condition) % 3 == 0
            cells.append("" if empty else split.attributes.value(condition, label))
        rows.append([name, str(10 + image), *cells])
    write(folder / "shop.csv", rows)
    return folder


def write(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def tag(shop, *flags, table="shop.csv", out="tagged.csv"):
    places = ["--table", str(shop / table), "--images", str(shop / "garments"), "--out", str(shop / out)]
    return main(["tag", "--run", str(shop / "run"), *places, *flags, "--overwrite"])


@pytest.mark.parametrize("flags", [[], ["--calibrate", "table"], ["--reference", "{}/run"]], ids=str)
def test_gaps_are_filled_and_nothing_else_changes(shop, capsys, flags):
    flags = [flag.format(shop) for flag in flags]
    assert tag(shop, *flags, "--precision", "0.05", "--json", "--plot", str(shop / "plot.png")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    before, after = read(shop / "shop.csv"), read(shop / "tagged.csv")
    width = len(before[0])
    header = after[0]
    assert header[:width] == before[0] and len(after) == len(before)
    images = {row[0] for row in before[1:]}
    counted = dict.fromkeys(result["attributes"], 0)
    for old, new in zip(before[1:], after[1:]):
        for name, was, now in zip(header[2:], old[2:], new[2:]):
            confidence = new[header.index(f"{name}_confidence")] if name in counted else ""
            if was:
                assert now == was and not confidence
            elif now:
                counted[name] += 1
                nearest = json.loads(new[header.index(f"{name}_nearest")])
                assert 0 <= float(confidence) <= 1 and 1 <= len(nearest) <= 3 and old[0] not in nearest
                assert "--reference" in flags or set(nearest) <= images
        assert new[:2] == old[:2]
    assert counted == {name: each["given"] for name, each in result["attributes"].items()}
    assert sum(counted.values()) > 0 and (shop / "plot.png").is_file()
    for name, each in result["attributes"].items():
        at = header.index(name)
        assert each["empty"] == sum(not row[at] for row in before[1:])


def test_a_precision_that_cannot_be_had_leaves_cells_empty(shop, capsys):
    rows = read(shop / "shop.csv")
    for number, row in enumerate(rows[1:]):
        row[3] = f"value {number}" if number % 2 else ""  # no two pictures agree, so no answer is right
    write(shop / "odd.csv", rows)
    assert (
        tag(shop, "--calibrate", "table", "--precision", "1", "--json", table="odd.csv", out="odd2.csv") == 0
    )
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["attributes"][rows[0][3]]
    assert told["given"] == 0 and told["threshold"] is None and told["left_empty"] == told["empty"]


def test_pictures_that_cannot_be_read_are_listed_and_left_out(shop, capsys):
    rows = read(shop / "shop.csv")[:40]
    (shop / "garments/broken.jpg").write_bytes(b"no picture")
    rows += [["broken.jpg", "1", *[""] * 8], ["absent.jpg", "1", *rows[1][2:]]]
    write(shop / "some.csv", rows)
    assert tag(shop, "--precision", "0", "--json", table="some.csv") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [each["file"] for each in result["unreadable"]] == ["broken.jpg", "absent.jpg"]
    after = read(shop / "tagged.csv")
    assert not any(after[-2][2:10]) and after[-1][2:10] == rows[-1][2:]
    assert "broken.jpg" not in str(after[1:-2]) and "absent.jpg" not in str(after[1:-2])


@pytest.mark.parametrize(
    "flags,table,problem",
    [
        ([], "tagged.csv", "its gaps were filled before"),
        (["--images", "nowhere"], "empty.csv", "has no filled cell"),
        ([], "absent.csv", "absent.csv: is missing"),
        (["--run", "nowhere"], "shop.csv", "model.json: is missing"),
        (["--plot", "plot.txt"], "shop.csv", "has no picture's ending"),
    ],
)
def test_errors_are_one_line_before_anything_is_computed(shop, capsys, flags, table, problem):
    if table == "tagged.csv":
        assert tag(shop, "--precision", "0") == 0
    write(shop / "empty.csv", [["image", "sleeve_length"], ["a.jpg", ""]])
    capsys.readouterr()
    assert tag(shop, *flags, table=table, out="new.csv") == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert problem in error[-1] and not (shop / "new.csv").exists()


def test_without_valid_the_remedy_is_to_calibrate_on_the_table(shop, capsys):
    (shop / "garments/filenames_valid.txt").rename(shop / "kept")
    try:
        assert tag(shop) == 1
        assert "--calibrate table" in capsys.readouterr().err
        assert tag(shop, "--calibrate", "table") == 0
    finally:
        (shop / "kept").rename(shop / "garments/filenames_valid.txt")
