"""data_prep/zappos50k.py on small releases in the original format, written here with their warts."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import DATA_PREP

from ccakit.data.layout import read_dataset
from ccakit.data.rows import read_all_values
from ccakit.data.split import SPLITS, Dataset
from ccakit.data.triplet_lists import read_triplets
from ccakit.errors import DataError
from ccakit.training.samplers import Relations, ShuffledBatches, TripletSampler

FOLDER = DATA_PREP
sys.path.insert(0, str(FOLDER))

import zappos50k  # noqa: E402

HEADER = "CID,Category,SubCategory,HeelHeight,Insole,Closure,Gender,Material,ToeStyle"
BRANDS = ("Bostonian", "A. Testoni", "Robert Graham.", "Frye & Co.", "'S Oliver")  # two end in "."
HEIGHTS = (
    "Flat",
    "Under 1in",
    "1in - 1 3/4in",
    "2in - 2 3/4in",
    "5in & over",
    "High heel",
    "",
    "1in - 1 3/4in;Flat",
)
BINS = ({"flat"}, {"under 1in"}, {"1in"}, {"2in"}, {"5in and over"}, set(), set(), {"1in", "flat"})
CLOSURES = ("Lace up", "Slip-On", "Buckle;Hook and Loop", "", "Zipper; Lace up ;", '"Bungee, Zip"')
CLOSED = (
    {"Lace up"},
    {"Slip-On"},
    {"Buckle", "Hook and Loop"},
    set(),
    {"Zipper", "Lace up"},
    {"Bungee, Zip"},
)
GENDERS = ("Men", "Women", "Boys;Girls", "Women", "Men;Women")
SIZES = {"train": 60, "valid": 30, "test": 40}


def release(folder: Path, n: int = 120, ends: str = "\r\n") -> dict[str, dict[str, set[str]]]:
    """Write n images and meta-data.csv; returns {100627.72.jpg: {condition: values}} of images with a row.

    Images 3 and 4 are missing, image 5 has no row, and a Mac has left its clutter.
    """
    rng, rows, truth = np.random.default_rng(0), [HEADER], {}
    for i in range(n):
        pick = [int(rng.integers(len(of))) for of in (HEIGHTS, CLOSURES, GENDERS, BRANDS)]
        category = ("Shoes", "Boots", "Sandals")[i % 3]
        path = (
            folder
            / "ut-zap50k-images"
            / category
            / "Oxfords"
            / BRANDS[pick[3]]
            / f"{100_000 + 7 * i}.{i % 9}.jpg"
        )
        if i not in (3, 4):
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (17, 23, 3)).astype(np.uint8)
            path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        if i != 5:
            rows.append(
                f"{100_000 + 7 * i}-{i % 9},{category},Oxfords,"
                f"{HEIGHTS[pick[0]]},Leather,{CLOSURES[pick[1]]},"
                f"{GENDERS[pick[2]]},Suede,Round Toe;Open Toe"
            )
        if i not in (3, 4, 5):
            truth[path.name] = {
                "class": {category},
                "closure": CLOSED[pick[1]],
                "gender": set(GENDERS[pick[2]].split(";")),
                "heel": BINS[pick[0]],
            }
    (folder / "ut-zap50k-images" / ".DS_Store").write_bytes(b"\0")
    (folder / "ut-zap50k-data").mkdir()
    (folder / "ut-zap50k-data" / "meta-data.csv").write_bytes((ends.join(rows) + ends).encode())
    return truth


def pack(folder: Path) -> None:
    """The folders as the release's two zips, and no folders any more."""
    for name in ("ut-zap50k-images", "ut-zap50k-data"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as made:
            for path in sorted((folder / name).rglob("*")):
                made.write(path, path.relative_to(folder).as_posix())
        (folder / name).rename(folder.parent / f"was-{name}")


def values_of(dataset: Dataset, split: str) -> dict[str, dict[str, set[str]]]:
    """All values of the split's images by file name, from label_*.txt where there is one."""
    rows = dataset[split].labels
    if (dataset.root / f"label_{split}.txt").is_file() and split != "train":
        rows = read_all_values(dataset.root, split)
    names, found = dataset.attributes.names, {}
    for image, condition, label in rows.tolist():
        of = found.setdefault(Path(dataset[split].filenames[image]).name, {name: set() for name in names})
        of[names[condition]].add(dataset.attributes.value(condition, label))
    return found


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_written_is_the_release(tmp_path: Path, zipped: bool) -> None:
    truth, out = release(tmp_path / "in"), tmp_path / "out"
    if zipped:
        pack(tmp_path / "in")
    _, notes = zappos50k.prepare(tmp_path / "in", out, sizes=SIZES)
    dataset = read_dataset(out, check_images=True)
    assert dataset.attributes.names == ("class", "closure", "gender", "heel")
    assert dataset.attributes.values[0] == ("Boots", "Sandals", "Shoes")
    assert dataset.attributes.values[3] == ("flat", "under 1in", "1in", "2in", "5in and over")
    found = {}
    for split in SPLITS:
        found |= values_of(dataset, split)
    assert found == truth
    counts = [len(dataset[split].filenames) for split in SPLITS]
    assert sum(counts) == len(truth) == 117 and np.allclose(
        np.array(counts) / 117, (0.7, 0.1, 0.2), atol=0.03
    )
    assert any("Robert Graham./" in name for name in dataset["train"].filenames)
    told = "\n".join(notes)
    for note in (
        "1 image left out, without a row",
        "2 rows left out, without an image",
        "heights without a measure",
        "images: 118 found, 50,025 expected",
        "of 117 images labelled",
    ):
        assert note in told


def test_an_image_has_one_value_of_a_condition_in_queries_and_candidates(tmp_path: Path) -> None:
    truth, out = release(tmp_path / "in"), tmp_path / "out"
    dataset, _ = zappos50k.prepare(tmp_path / "in", out, sizes=SIZES)
    for name in ("valid", "test"):
        split = dataset[name]
        pairs = {tuple(row) for row in split.labels[:, :2].tolist()}
        assert len(pairs) == len(split.labels)
        want = sum(bool(of) for file in split.filenames for of in truth[Path(file).name].values())
        assert len(pairs) == want
        assert 0.15 < len(split.queries) / len(split.labels) < 0.3


def check_triplets(dataset: Dataset, split: str, truth: dict[str, dict[str, set[str]]]) -> np.ndarray:
    """Every triplet is one of its condition: anchor and positive share a value, anchor and negative none."""
    filenames = dataset[split].filenames
    triplets = read_triplets(dataset.root / f"triplets_{split}.txt", dataset.attributes, len(filenames))
    for *images, condition in triplets.tolist():
        name = dataset.attributes.names[condition]
        anchor, positive, negative = (truth[Path(filenames[i]).name][name] for i in images)
        assert anchor & positive and negative and len(set(images)) == 3
    return triplets


def test_regenerated_triplets(tmp_path: Path) -> None:
    truth, out = release(tmp_path / "in"), tmp_path / "out"
    _, notes = zappos50k.prepare(tmp_path / "in", out, sizes=SIZES, seed=4)
    dataset = read_dataset(out)
    assert dataset.about["triplets"] == "regenerated, seed 4: not CSN's lists"
    assert dataset.about["split"] == "seeded, images 70:10:20, seed 4: not CSN's"
    assert any("regenerated, seed 4: not CSN's lists" in note for note in notes)
    for split in SPLITS:
        triplets = check_triplets(dataset, split, truth)
        assert np.bincount(triplets[:, 3]).tolist() == [SIZES[split]] * 4
        rows = read_all_values(out, split) if split != "train" else dataset[split].labels
        carried = {
            (i, c): set(rows[(rows[:, :2] == (i, c)).all(axis=1), 2].tolist())
            for i, c in rows[:, :2].tolist()
        }
        apart = [bool(carried[a, c] - carried[n, c]) for a, _, n, c in triplets.tolist()]
        assert all(apart)  # the negative lacks a value of the anchor's
    images = [set(dataset[split].filenames) for split in SPLITS]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]


def test_training_finds_what_it_needs_in_the_labels(tmp_path: Path) -> None:
    truth = release(tmp_path / "in")
    dataset, _ = zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES)
    train = dataset["train"]
    sampler = TripletSampler(train.labels, 4, batch_size=8, triplets_per_epoch=64)
    assert sampler.index.usable == [0, 1, 2, 3] and sum(1 for _ in sampler.epoch(0)) == 8
    batch = next(ShuffledBatches(train.labels, batch_size=20).epoch(0))
    relation = Relations(train.labels, 4, len(train.filenames)).of(batch)
    for condition, name in enumerate(dataset.attributes.names):
        values = [truth[Path(train.filenames[image]).name][name] for image in batch]
        want = [[(1 if a & b else -1) if a and b else 0 for b in values] for a in values]
        assert relation[condition].tolist() == want


def test_the_folder_of_images_may_be_a_link(tmp_path: Path) -> None:
    release(tmp_path / "in")
    images, store = tmp_path / "in/ut-zap50k-images", tmp_path / "store"
    images.rename(store)
    images.symlink_to(store)
    dataset, notes = zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES)
    assert all(split.path(0).is_file() for split in dataset.splits.values())
    assert f"ut-zap50k-images/ is a link: its images are read from {store}" in notes


def test_the_seed_decides(tmp_path: Path) -> None:
    release(tmp_path / "in")
    made = []
    for i, seed in enumerate((0, 0, 1)):
        zappos50k.prepare(tmp_path / "in", tmp_path / f"{i}", sizes=SIZES, seed=seed, link=True)
        files = sorted((tmp_path / f"{i}").glob("*.txt"))
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1] and made[0] != made[2]
    assert made[0]["triplets_test.txt"] != made[2]["triplets_test.txt"]


def csn(folder: Path, truth: dict[str, dict[str, set[str]]], source: Path, n: int = 50) -> dict[str, list]:
    """CSN's lists over images of `truth` and two that are absent; returns {split: its triplets by name}.

    Written as `anchor far close`, with CRLF, tabs and a blank line at the end.
    """
    rng, paths = np.random.default_rng(1), {path.name: path for path in source.rglob("*.jpg")}
    names = [paths[name].relative_to(source / "ut-zap50k-images").as_posix() for name in truth]
    names += [
        "Shoes/Oxfords/Bostonian/100021.3.jpg",
        "Shoes/Oxfords/Bostonian/100028.4.jpg",
    ]  # images 3 and 4
    order = rng.permutation(len(names))
    names = [names[i] for i in order]
    (folder / "tripletlists").mkdir(parents=True)
    (folder / "filenames.json").write_bytes(("\r\n".join(names) + "\r\n").encode())
    ends, made = np.cumsum([84, 14, 21]), {}
    for split, theirs, end, size in zip(SPLITS, ("train", "val", "test"), ends, (84, 14, 21)):
        pool = np.arange(end - size, end)
        for condition in ("class", "closure", "gender", "heel"):
            lines = []
            for _ in range(n):
                anchor, positive, negative = rng.choice(pool, 3, replace=False).tolist()
                lines.append(f"{anchor}\t{negative} {positive}\t")
                triplet = [Path(names[i]).name for i in (anchor, positive, negative)]
                made.setdefault(split, []).append([*triplet, condition])
            (folder / "tripletlists" / f"{condition}_tripletlist_{theirs}.txt").write_bytes(
                ("\r\n".join(lines) + "\r\n\r\n").encode()
            )
    return made


@pytest.mark.parametrize("inside", [True, False])
def test_csns_lists_are_used_in_our_order(tmp_path: Path, inside: bool) -> None:
    truth, out = release(tmp_path / "in"), tmp_path / "out"
    given = csn(tmp_path / "csn", truth, tmp_path / "in")
    folder = tmp_path / "csn" / "tripletlists" if inside else tmp_path / "csn"
    zappos50k.prepare(tmp_path / "in", out, triplets=folder)
    dataset, kept, total = read_dataset(out, check_images=True), 0, 0
    for split in SPLITS:
        filenames = dataset[split].filenames
        rows = read_triplets(out / f"triplets_{split}.txt", dataset.attributes, len(filenames)).tolist()
        got = [
            [*(Path(filenames[i]).name for i in row[:3]), dataset.attributes.names[row[3]]] for row in rows
        ]
        want = [row for row in given[split] if set(row[:3]) <= set(truth)]
        assert got == want and rows
        assert {Path(name).name for name in filenames} == {n for row in given[split] for n in row[:3]} & set(
            truth
        )
        kept, total = kept + len(rows), total + len(given[split])
    assert kept < total == 600
    assert dataset.about["triplets"] == f"CSN's lists, reduced to survivors: {kept} of {total} triplets"
    assert dataset.about["split"].startswith("CSN's images of each split")


def test_csns_whole_lists_and_an_image_in_two_splits(tmp_path: Path) -> None:
    truth, out = release(tmp_path / "in"), tmp_path / "out"
    csn(tmp_path / "csn", truth, tmp_path / "in")
    for i in (3, 4):  # the images that were missing come back, with their rows
        path = tmp_path / f"in/ut-zap50k-images/Shoes/Oxfords/Bostonian/{100_000 + 7 * i}.{i}.jpg"
        path.write_bytes(cv2.imencode(".jpg", np.full((9, 9, 3), i, np.uint8))[1].tobytes())
    zappos50k.prepare(tmp_path / "in", out, triplets=tmp_path / "csn")
    assert read_dataset(out, check_images=True).about["triplets"] == "CSN's lists"
    path = tmp_path / "csn/tripletlists/heel_tripletlist_train.txt"
    test = (tmp_path / "csn/tripletlists/heel_tripletlist_test.txt").read_text().split()[0]
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([f"{test} {' '.join(lines[0].split()[1:])}", lines[1].split()[0] + " 1 1", *lines[2:]])
    )
    dataset, notes = zappos50k.prepare(tmp_path / "in", out, triplets=tmp_path / "csn")
    told = "\n".join([*notes, *dataset.findings])
    assert "1 image named by the triplets of several splits" in told and "name an image twice" in told
    assert dataset.about["triplets"] == "CSN's lists, reduced to survivors: 599 of 600 triplets"


def test_a_second_run_and_a_source_that_is_the_target(tmp_path: Path) -> None:
    release(tmp_path / "in")
    zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES)
    images = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    next(iter(images)).unlink()
    zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES)
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    assert set(again) == set(images) and sum(again[path] != images[path] for path in images) == 1
    zappos50k.prepare(tmp_path / "in", tmp_path / "in", sizes=SIZES)  # nothing is copied
    assert len(read_dataset(tmp_path / "in", check_images=True)["train"].filenames) > 70


def test_equal_files_go_to_one_split(tmp_path: Path) -> None:
    release(tmp_path / "in")
    images = sorted((tmp_path / "in").rglob("*.jpg"))
    for i in range(0, 60, 2):
        images[i].write_bytes(images[i + 1].read_bytes())
    zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES, by_content=True)
    dataset = read_dataset(tmp_path / "out")
    seen = [{(tmp_path / "out" / name).read_bytes() for name in dataset[split].filenames} for split in SPLITS]
    assert sum(len(of) for of in seen) == len(set().union(*seen))


def meta(change: Callable[[str], str]) -> Callable[[Path], None]:
    """A damage to meta-data.csv."""

    def damage(folder: Path) -> None:
        path = folder / "ut-zap50k-data" / "meta-data.csv"
        path.write_bytes(change(path.read_bytes().decode()).encode("latin-1"))

    return damage


def gone(folder: Path) -> None:
    (folder / "ut-zap50k-images").rename(folder / "elsewhere")


def no_meta(folder: Path) -> None:
    (folder / "ut-zap50k-data" / "meta-data.csv").unlink()


def no_zip(folder: Path) -> None:
    gone(folder)
    (folder / "ut-zap50k-images.zip").write_bytes(b"PK\x03\x04 cut short")


def outside(folder: Path) -> None:
    gone(folder)
    with zipfile.ZipFile(folder / "ut-zap50k-images.zip", "w") as made:
        made.writestr("../evil.jpg", b"x")


BROKEN = {
    "no images": (gone, "neither the folder ut-zap50k-images nor", None),
    "no meta-data.csv": (no_meta, "neither ut-zap50k-data/meta-data.csv", None),
    "a broken zip": (no_zip, "broken, or no zip", None),
    "a zip that writes elsewhere": (outside, "outside the target", None),
    "another header": (meta(lambda text: text.replace("Closure", "Fastening", 1)), "no column Closure", 1),
    "a row cut short": (meta(lambda text: text.replace("Leather,", "", 1)), "8 cells for 9", 2),
    "a quote left open": (meta(lambda text: text + '100-1,"Shoes'), "is broken", None),
    "no CID": (meta(lambda text: text.replace("100007-1", "", 1)), "has no CID", 3),
    "no UTF-8": (meta(lambda text: text.replace("Suede", "Su\xe8de", 1)), "UTF-8", 2),
    "empty": (meta(lambda text: ""), "is empty", None),
    "an empty column": (
        meta(lambda text: HEADER + "\n100000-0,Shoes,,Flat,,,Men,,\n"),
        "no value of closure",
        None,
    ),
    "one row": (
        meta(lambda text: "\n".join(text.splitlines()[:2])),
        "no value of|too few|would lack|no triplet",
        None,
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_is_one_clear_error(tmp_path: Path, what: str) -> None:
    release(tmp_path / "in")
    damage, problem, line = BROKEN[what]
    damage(tmp_path / "in")
    with pytest.raises(DataError, match=problem) as caught:
        zappos50k.prepare(tmp_path / "in", tmp_path / "out", sizes=SIZES)
    assert caught.value.remedy and (line is None or caught.value.line == line)
    assert not (tmp_path / "evil.jpg").exists() and not (tmp_path / "out" / "meta.json").exists()


def test_csns_lists_that_lack_something(tmp_path: Path) -> None:
    truth = release(tmp_path / "in")
    csn(tmp_path / "csn", truth, tmp_path / "in")
    lists, names = tmp_path / "csn" / "tripletlists", tmp_path / "csn" / "filenames.json"

    def problem() -> str:
        with pytest.raises(DataError) as caught:
            zappos50k.prepare(tmp_path / "in", tmp_path / "out", triplets=tmp_path / "csn")
        return str(caught.value)

    (lists / "heel_tripletlist_val.txt").write_text("0 1 2\n0 1 500\n")
    assert "heel_tripletlist_val.txt, line 2: image 500 is out of range" in problem()
    (lists / "heel_tripletlist_val.txt").unlink()
    assert "heel_tripletlist_val.txt: is missing" in problem()
    names.write_text(names.read_text() + "../../x.jpg\n")
    assert "filenames.json, line 120" in problem()
    names.unlink()
    assert "filenames.json: is missing" in problem()


def test_malformed_tables_end_in_one_error_or_in_rows(tmp_path: Path) -> None:
    rng, path, read = np.random.default_rng(0), tmp_path / "meta-data.csv", 0
    pieces = [
        ",",
        ",",
        ",,,",
        '"',
        ";",
        "\r\n",
        "\n",
        "\r",
        "\0",
        "Shoes",
        "100-1",
        "é",
        "2in",
        "\t",
        " ",
        HEADER,
    ]
    row = "100-{},Shoes,Oxfords,Flat,,Lace up,Men,,"
    for i in range(800):
        rows = [HEADER] + [row.format(j) for j in range(int(rng.integers(3)))]
        extra = "".join(rng.choice(pieces, int(rng.integers(0, 8))))
        text = "\n".join(rows) + "\n" * bool(i % 3) + extra
        at = int(rng.integers(len(text)))
        path.write_bytes((text if i % 2 else text[:at] + str(rng.choice(pieces)) + text[at:]).encode())
        try:
            rows_read, _ = zappos50k.read_meta_csv(path)
        except DataError as error:
            assert error.path == path
            continue
        read += 1
        assert all(set(cells) == {"class", "closure", "gender", "heel"} for cells in rows_read.values())
    assert 100 < read < 700


DOCS = (FOLDER.parent / "docs" / "datasets.md").read_text()
COMMANDS = re.findall(r"^\.venv/bin/python data_prep/(\w+)\.py (.+)$", DOCS, re.MULTILINE)


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_the_commands_of_the_docs_have_flags_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, flags: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no data: one clear error, and not one of the command line
    nothing = {"fashion_mnist": ["--source", "nowhere"], "garments": ["--train", "0"]}
    words = [*flags.split(), *nothing.get(script, [])]
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(script).main(words)
    assert str(caught.value).startswith("error: "), caught.value


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        zappos50k.main(["--help"])
    told = capsys.readouterr().out
    for word in ("50,025", "non-commercial", "vision.cs.utexas.edu", "200000", "regenerated"):
        assert word in told
    release(tmp_path / "in")
    pack(tmp_path / "in")
    command = [sys.executable, str(FOLDER / "zappos50k.py"), "--source", str(tmp_path / "in"), "--out"]
    flags = ["--train", "20", "--valid", "10", "--test", "10"]
    done = subprocess.run(
        [*command, str(tmp_path / "out"), *flags], capture_output=True, text=True, cwd=FOLDER.parent
    )
    assert done.returncode == 0 and "triplets: train 80, valid 40, test 40" in done.stdout, done.stderr
    with pytest.raises(SystemExit, match="error: .*must be above 0"):
        zappos50k.main([*command[2:], str(tmp_path / "out"), "--test", "0"])
