"""data_prep/darn.py on small releases made here, its images from a server on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from picture_server import Server, picture, serving
from places import DATA_PREP

from ccakit.data.layout import read_dataset
from ccakit.data.rows import read_all_values
from ccakit.errors import DataError

FOLDER = DATA_PREP
sys.path.insert(0, str(FOLDER))

import darn  # noqa: E402

SIZES = (20, 13, 55, 7, 28, 11, 26, 8, 17)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as made:
        yield made


def release(folder: Path, counts: dict[str, int], ends: str = "\r\n") -> dict[str, str]:
    """ASEN's split files of DARN in small: an image a row, candidates before queries; {name: /ok/N}."""
    rng, paths = np.random.default_rng(0), {}
    (folder / "DARN").mkdir(parents=True)
    names = [
        "clothes category",
        "clothes button",
        "clothes color",
        "clothes length",
        "clothes pattern",
        "clothes shape",
        "collar shape",
        "sleeve length",
        "sleeve shape",
    ]
    entry = {"ATTRIBUTES": names, "ATTRIBUTES_NUM": dict(zip(names, SIZES))}
    (folder / "meta.json").write_text(json.dumps({"FashionAI": {}, "DARN": entry}))

    def write(name: str, lines: list[str]) -> None:
        (folder / "DARN" / f"{name}.txt").write_bytes((ends.join(lines) + ends).encode())

    for split, n in counts.items():
        images = [f"pic/{50_000_000 + len(paths) + i}/{60 * i}_{i}_1.jpg" for i in range(n)]
        paths |= {name: f"/ok/{len(paths) + i}" for i, name in enumerate(images)}
        write(f"filenames_{split}", images)
        rows = [(i, c := int(rng.integers(9)), int(rng.integers(min(3, SIZES[c])))) for i in range(n)]
        if split == "train":
            more = [" ".join(f"{c} {rng.integers(3)}" for c in range(9)) for _ in range(n)]
            write("label_train", [f"{i} {labels}" for i, labels in enumerate(more)])
        else:
            at = n - n // 5
            write(f"candidate_{split}", [" ".join(map(str, row)) for row in rows[:at]])
            write(f"query_{split}", [" ".join(map(str, row)) for row in rows[at:]])
    return paths


COUNTS = {"train": 30, "valid": 20, "test": 25}


def test_all_images_present_leave_asens_lists_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    paths = release(tmp_path / "in", COUNTS)
    for name, path in paths.items():
        (tmp_path / "have" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "have" / name).write_bytes(picture(int(path.split("/")[2])))
    out = tmp_path / "out"
    command = ["--splits", str(tmp_path / "in"), "--images", str(tmp_path / "have"), "--out", str(out)]
    darn.main(command)
    dataset = read_dataset(out, check_images=True)
    assert {name: len(split.filenames) for name, split in dataset.splits.items()} == COUNTS
    assert dataset.about["split"] == "ASEN's split files" and dataset.attributes.sizes == SIZES
    for path in (tmp_path / "in" / "DARN").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    told = capsys.readouterr().out
    for count in ("images: 75 found, 214,619", "values: 185 found, 185", "test: 25 found, 21,461"):
        assert f"{count} expected" in told
    assert "75 images taken" in told and "train 30, valid 20, test 25 images (ASEN's split files)" in told
    darn.main([*command, "--link"])
    assert "0 images taken" in capsys.readouterr().out  # all of them lie there already


def test_survivors_only(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = release(tmp_path / "in", COUNTS)
    dead = {3: "/gone/1", 4: "/page/1", 31: "/gone/2", 55: "/short/1", 74: "/gone/3"}  # 74: the last query
    addresses = {name: server.url + dead.get(i, path) for i, (name, path) in enumerate(paths.items())}
    urls = tmp_path / "urls.txt"
    urls.write_bytes("".join(f"{name}\t{url}\r\n" for name, url in addresses.items()).encode())
    out = tmp_path / "out"
    command = [
        "--urls",
        str(urls),
        "--splits",
        str(tmp_path / "in" / "DARN"),
        "--out",
        str(out),
        "--timeout",
        "2",
        "--backoff",
        "0.01",
    ]
    darn.main(command)
    dataset, names = read_dataset(out, check_images=True), list(paths)
    assert dataset.about["split"] == "ASEN's split files, reduced to survivors: 70 of 75 images"
    gone = {names[i] for i in dead}
    whole = {
        name: (tmp_path / "in" / "DARN" / f"filenames_{name}.txt").read_text().split() for name in COUNTS
    }
    for name, split in dataset.splits.items():
        assert split.filenames == [image for image in whole[name] if image not in gone]
        for kind, rows in {"query": split.queries, "candidate": split.candidates}.items():
            if rows is not None:
                lines = (tmp_path / "in" / "DARN" / f"{kind}_{name}.txt").read_text().splitlines()
                given = [list(map(int, line.split())) for line in lines]
                want = [(whole[name][i], c, v) for i, c, v in given if whole[name][i] not in gone]
                assert [(split.filenames[i], c, v) for i, c, v in rows.tolist()] == want
    assert len(dataset["test"].queries) == 4 and dataset["train"].label_matrix().shape == (28, 9)
    report = json.loads((out / "survival.json").read_text())
    assert {name: (s["present"], s["listed"]) for name, s in report.items()} == {
        "train": (28, 30),
        "valid": (19, 20),
        "test": (23, 25),
    }
    assert report["train"]["reasons"] == {"HTTP 404": 1, "a web page, no image": 1}
    assert report["train"]["missing"] == [names[3], names[4]]
    assert all(each == {"listed": 30, "present": 28} for each in report["train"]["attributes"].values())
    assert sum(each["present"] for each in report["test"]["attributes"].values()) == 23
    told = capsys.readouterr().out
    assert "75 addresses:" in told and "missing, HTTP 404: 3" in told and "70 of 75" in told
    assert "images: 70 found, 214,619 expected" in told
    server.asked.clear()
    darn.main(command)  # again: what failed for good is not asked for, the same is written
    assert set(server.asked) == {"/short/1"} and read_dataset(out).about == dataset.about  # it may pass
    for i in dead:
        urls.write_text(urls.read_text().replace(addresses[names[i]], f"{server.url}/ok/{i}"))
    darn.main(command)
    assert read_dataset(out, check_images=True).about["split"] == "ASEN's split files"
    assert len(read_dataset(out)["test"].filenames) == 25


def test_broken_images_and_lost_lists(tmp_path: Path) -> None:
    paths = release(tmp_path / "in", COUNTS, ends="\n")
    rows = ["candidate", "query"]
    lists = [(tmp_path / "in" / "DARN" / f"{kind}_valid.txt").read_text() for kind in rows]
    (tmp_path / "in" / "DARN" / "label_valid.txt").write_text("".join(lists))  # all values of each image
    for i, (name, path) in enumerate(paths.items()):
        if i < 50:  # none of test
            (tmp_path / "have" / name).parent.mkdir(parents=True, exist_ok=True)
            data = picture(int(path.split("/")[2]))
            (tmp_path / "have" / name).write_bytes(data[:-200] if i in (7, 35) else data)
    out = tmp_path / "out"
    darn.main(["--splits", str(tmp_path / "in"), "--images", str(tmp_path / "have"), "--out", str(out)])
    dataset = read_dataset(out, check_images=True)
    assert set(dataset.splits) == {"train", "valid"} and not (out / "filenames_test.txt").exists()
    assert dataset.about["split"].endswith("reduced to survivors: 48 of 75 images")
    report = json.loads((out / "survival.json").read_text())
    assert report["train"]["reasons"] == report["valid"]["reasons"] == {"broken, or no image": 1}
    assert report["test"]["reasons"] == {"no file": 25}
    want = np.concatenate([dataset["valid"].candidates, dataset["valid"].queries])
    assert np.array_equal(np.unique(read_all_values(out, "valid"), axis=0), np.unique(want, axis=0))


def test_labels_without_asens_lists(tmp_path: Path) -> None:
    rng, out = np.random.default_rng(0), tmp_path / "out"
    values = rng.integers(-1, 3, (300, 9))
    names = [f"pic/{i}.jpg" for i in range(300)]
    for i, name in enumerate(names):
        (out / "pic").mkdir(parents=True, exist_ok=True)
        if i != 17:
            (out / name).write_bytes(picture(i))
    lines = [f"{name}\t{' '.join(map(str, row))}" for name, row in zip(names, values.tolist())]
    (tmp_path / "labels.txt").write_bytes("\r\n".join(lines).encode())
    darn.main(["--labels", str(tmp_path / "labels.txt"), "--out", str(out), "--seed", "5"])
    dataset = read_dataset(out, check_images=True)
    assert dataset.about["split"] == "seeded, not ASEN's, seed 5, reduced to survivors: 299 of 300 images"
    seen = [name for split in dataset.splits.values() for name in split.filenames]
    assert sorted(seen) == sorted(set(names) - {names[17]})
    for split in dataset.splits.values():
        for image, condition, label in split.labels.tolist():
            assert values[names.index(split.filenames[image]), condition] == label
    for bad, line in ((lines[0] + " 3", 2), (lines[0].replace("\t", "\t99 ")[:-2], 2)):
        (tmp_path / "labels.txt").write_text(f"{lines[1]}\n{bad}\n")
        with pytest.raises(DataError) as caught:
            darn.read_labels(tmp_path / "labels.txt")
        assert caught.value.line == line


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "give --urls"),
        (["--splits", "in", "--labels", "x"], "give --urls"),
        (["--splits", "in"], "too few of the listed images"),
        (["--splits", "nowhere"], "has none of the lists"),
        (["--splits", "in", "--images", "nowhere"], "is not a folder"),
        (["--urls", "nowhere.txt"], "is missing"),
        (["--splits", "in", "--threads", "0"], "above 0"),
    ],
)
def test_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], problem: str
) -> None:
    release(tmp_path / "in", COUNTS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=problem) as caught:
        darn.main([*flags, "--out", "out"])
    assert str(caught.value).startswith("error: ") and "\n" not in str(caught.value)


def test_asens_archive_is_taken_as_it_is(tmp_path: Path) -> None:
    paths = release(tmp_path / "in", COUNTS)
    with tarfile.open(tmp_path / "meta_data.tar.gz", "w:gz") as pack:
        pack.add(tmp_path / "in", "data")
    for name, path in paths.items():
        (tmp_path / "have" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "have" / name).write_bytes(picture(int(path.split("/")[2])))
    command = ["--images", str(tmp_path / "have"), "--splits"]
    darn.main([*command, str(tmp_path / "meta_data.tar.gz"), "--out", str(tmp_path / "out")])
    darn.main([*command, str(tmp_path / "in"), "--out", str(tmp_path / "same")])
    for path in (tmp_path / "same").glob("*.*"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_asens_folder_is_not_written_to(tmp_path: Path) -> None:
    release(tmp_path / "in", COUNTS)
    before = {path: path.read_bytes() for path in (tmp_path / "in" / "DARN").iterdir()}
    with pytest.raises(SystemExit, match="folder of the split files"):
        darn.main(["--splits", str(tmp_path / "in"), "--out", str(tmp_path / "in" / "DARN")])
    assert before == {path: path.read_bytes() for path in (tmp_path / "in" / "DARN").iterdir()}


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        darn.main(["--help"])
    told = capsys.readouterr().out
    for word in (
        "214,619",
        "Maryeon/asen",
        "--retry-failed",
        "no licence",
        "path address",
        "darn_url.txt",
        "meta_data.tar.gz",
    ):
        assert word in told
    command = [sys.executable, str(FOLDER / "darn.py"), "--out", str(tmp_path)]
    failed = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


@pytest.mark.slow
def test_on_asens_own_files(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="too few of the listed images"):  # there is not one image here
        darn.main(["--splits", str(splits), "--out", str(tmp_path)])
    dataset = read_dataset(tmp_path)
    assert {name: len(split.filenames) for name, split in dataset.splits.items()} == {
        "valid": 21_461,
        "test": 21_461,
    }
    lost = dict.fromkeys(dataset["test"].filenames[::2], "HTTP 404")
    made, _ = darn.reduce_split(dataset["test"], None, lost)
    assert len(made.filenames) == 10_730 == 21_461 // 2 and 8_000 < len(made.candidates) < 9_000
