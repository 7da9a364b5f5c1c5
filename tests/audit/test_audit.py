"""The auditor: each defect is planted and must be found, by name and place; clean data must be clean."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ccakit.attributes import Attributes
from ccakit.audit import dataset as audit
from ccakit.audit import images as looking
from ccakit.audit.report import table
from ccakit.audit.tables import beside_table1
from ccakit.cli import main, parse
from ccakit.data import images as reading
from ccakit.data.drawn import write_garments
from ccakit.data.findings import several_valued
from ccakit.data.images import cut_short, kind_of
from ccakit.data.layout import write_dataset
from ccakit.data.split import Split
from ccakit.data.value_index import ValueIndex
from ccakit.errors import DataError

TOY = Attributes(("tone", "size"), (("dark", "mid", "light"), ("small", "large")))
ROWS = {  # (image, condition, label): every value twice, every query answered
    "train": [[i, 0, i % 3] for i in range(6)] + [[i, 1, i % 2] for i in range(6)],
    "query": [[0, 0, 0], [1, 0, 1], [0, 1, 1]],
    "candidate": [[2, 0, 0], [3, 0, 1], [4, 0, 0], [2, 1, 1], [3, 1, 0]],
}


def noise(seed: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def write_toy(root: Path, names: dict | None = None, rows: dict | None = None, images: bool = True) -> Path:
    """A clean data set of 6 + 5 + 5 images, half PNG and half JPEG; `rows` and `names` change it."""
    rows, splits = {**ROWS, **(rows or {})}, []
    for s, split in enumerate(("train", "valid", "test")):
        files = [f"{split}/{i}.{'jpg' if i % 2 else 'png'}" for i in range(6 if split == "train" else 5)]
        files = [(names or {}).get(name, name) for name in files]
        train, query, candidate = (np.array(rows[side]) for side in ("train", "query", "candidate"))
        both = np.concatenate([candidate, query])
        splits.append(
            Split(split, root, TOY, files, train)
            if split == "train"
            else Split(split, root, TOY, files, both, query, candidate)
        )
        for i, name in enumerate(files if images else []):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name), noise(100 * s + i, 12 + i))
    write_dataset(root, "toy", TOY, splits)
    return root


def kinds(result: dict) -> list[str]:
    return [found["kind"] for found in result["findings"]]


def test_a_clean_data_set_is_clean(tmp_path, capsys):
    result = audit.audit(write_toy(tmp_path / "toy"), threads=3)
    assert result["findings"] == [] and result["breaks"] == 0
    assert result["images"]["checked"] == 16 and result["images"]["kinds"] == {"PNG": 9, "JPEG": 7}
    assert result["images"]["sizes"] == {"min": [12, 12], "median": [14, 14], "max": [17, 17]}
    assert result["splits"]["train"]["attributes"] == {
        "tone": {"images": [2, 2, 2]},
        "size": {"images": [3, 3]},
    }
    tone = result["splits"]["test"]["attributes"]["tone"]
    assert tone == {
        "images": [3, 2, 0],
        "queries": [1, 1, 0],
        "candidates": [2, 1, 0],
        "unanswered": 0,
        "ceiling": 100,
    }
    assert "nothing found" in table(result)
    assert main(["audit", str(tmp_path / "toy"), "--strict"]) == 0
    assert "16 looked at: 7 JPEG, 9 PNG; sizes 12x12 to 17x17" in capsys.readouterr().out


def test_drawn_garments_are_clean(tmp_path):
    write_garments(tmp_path / "garments", 60, 30, 40, size=32, progress=False)
    result = audit.audit(tmp_path / "garments")
    assert result["breaks"] == 0 and set(kinds(result)) <= {"no_anchor", "starving", "unanswered", "unseen"}
    images = result["images"]
    assert (
        images["checked"] == 130 == images["kinds"]["PNG"]
        and not images["same_content"] + images["same_pixels"]
    )
    assert all(shared == {"path": [], "content": [], "pixels": []} for shared in result["leakage"].values())
    assert list(result["leakage"]) == ["train/valid", "train/test", "valid/test"]


def cut(path: Path, keep: float = 0.6) -> None:
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def flip(path: Path) -> None:
    """Change a bit of the PNG's last checksum before the end chunk."""
    data = bytearray(path.read_bytes())
    data[-13] ^= 1
    path.write_bytes(data)


def lead_out(path: Path) -> None:
    outside = path.parent.parent.parent / "outside.png"
    shutil.move(path, outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("folders", [["train"], ["train", "valid", "test"], ["train by a link"]])
def test_images_in_a_folder_that_is_a_link_are_looked_at(tmp_path, folders):
    root = write_toy(tmp_path / "toy")
    for folder in folders:
        name = folder.split()[0]
        (root / name).rename(tmp_path / f"store {name}")
        (tmp_path / "link").symlink_to(tmp_path / f"store {name}")
        (root / name).symlink_to(tmp_path / ("link" if "link" in folder else f"store {name}"))
        (tmp_path / "link").unlink() if "link" not in folder else None
    (tmp_path / "by a link").symlink_to(root)
    for each in (root, tmp_path / "by a link"):
        result = audit.audit(each)
        assert result["images"]["n_outside"] == 0 and sum(result["images"]["kinds"].values()) == 16
        texts = [finding["text"] for finding in result["findings"]]
        for name in (folder.split()[0] for folder in folders):
            assert f"{name}/ is a link: its images are read from {tmp_path / f'store {name}'}" in texts
    lead_out(tmp_path / "store train" / "0.png")
    result = audit.audit(root)
    assert [seen["path"] for seen in result["images"]["outside"]] == ["train/0.png"] and result["breaks"] == 1


@pytest.mark.parametrize(
    "name,damage,kind,what",
    [
        ("train/1.jpg", Path.unlink, "missing", "is missing"),
        ("train/2.png", lambda p: p.write_bytes(b""), "empty", "is empty"),
        ("test/3.jpg", cut, "truncated", "no end marker"),
        ("test/4.png", cut, "truncated", "no end chunk"),
        ("valid/2.png", flip, "truncated", "checksum of the PNG's IDAT"),
        ("train/4.png", lambda p: p.write_text("no image at all"), "unreadable", "no image"),
        ("train/2.png", lambda p: (p.unlink(), p.mkdir()), "unreadable", "not a regular file"),
        ("train/2.png", lambda p: (p.unlink(), os.mkfifo(p)), "unreadable", "not a regular file"),
        ("test/2.png", lambda p: (p.unlink(), p.symlink_to("nowhere.png")), "missing", "is missing"),
        ("train/0.png", lead_out, "outside", "link"),
    ],
)
def test_a_broken_image_is_found(tmp_path, capsys, name, damage, kind, what):
    root = write_toy(tmp_path / "toy")
    damage(root / name)
    result = audit.audit(root)
    split, line = name.split("/")[0], int(name.split("/")[1][0]) + 1
    assert kinds(result) == [kind] and result["breaks"] == 1
    assert [each["path"] for each in result["images"][kind]] == [name]
    assert (
        result["images"][kind][0]["listed"] == [[split, line]] and what in result["images"][kind][0]["what"]
    )
    assert name in result["findings"][0]["text"] and f"{split}, line {line}" in result["findings"][0]["text"]
    assert f"1 {kind}" in table(result)
    assert main(["audit", str(root)]) == 0 and main(["audit", "--strict", str(root)]) == 1
    assert main(["audit", "--strict", "--no-images", str(root)]) == 0
    capsys.readouterr()


def test_a_file_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    root = write_toy(tmp_path / "toy")
    monkeypatch.setattr(reading, "MAX_BYTES", (root / "train/5.jpg").stat().st_size - 1)
    bad = {each["path"]: each["what"] for each in audit.audit(root)["images"]["unreadable"]}
    assert "more than the limit" in bad["train/5.jpg"] and "train/1.jpg" not in bad


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(3, 40)).save(file, kind, **options)
    return file.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with another JPEG, end marker and all, inside its APP1 segment."""
    outer, inner = encoded("JPEG"), encoded("JPEG")
    return outer[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + outer[2:]


@pytest.mark.parametrize(
    "kind,data",
    [
        ("JPEG", encoded("JPEG")),
        ("JPEG", encoded("JPEG", progressive=True)),
        ("JPEG", with_thumbnail()),
        ("PNG", encoded("PNG")),
        ("WebP", encoded("WEBP")),
        ("GIF", encoded("GIF")),
        ("BMP", encoded("BMP")),
    ],
)
def test_every_cut_is_seen(kind, data):
    assert cut_short(data) == "" and kind_of(data) == kind
    assert cut_short(data + b"\0\0") == "", "what follows the end does not matter"
    for keep in {*range(12, len(data), max(1, len(data) // 97)), len(data) - 2, len(data) - 1}:
        assert cut_short(data[:keep]), f"{kind} of {len(data)} bytes, cut to {keep}"


def test_equal_images_are_found_and_labels_that_disagree(tmp_path):
    root = write_toy(tmp_path / "toy")
    shutil.copy(root / "train/0.png", root / "train/3.jpg")  # tone dark = dark, size small / large
    cv2.imwrite(
        str(root / "train/4.png"), noise(2, 14), [cv2.IMWRITE_PNG_COMPRESSION, 0]
    )  # the pixels of train/2.png
    result = audit.audit(root)
    assert kinds(result) == ["same_content", "same_pixels", "conflict"] and result["breaks"] == 0
    assert (
        result["images"]["same_content"] == [["train/0.png", "train/3.jpg"]] == result["images"]["conflicts"]
    )
    assert result["images"]["same_pixels"] == [["train/2.png", "train/4.png"]]


def test_leakage_by_path(tmp_path):
    root = write_toy(
        tmp_path / "toy", names={"test/1.jpg": "train/../train/1.jpg", "valid/0.png": "train/./2.png"}
    )
    cv2.imwrite(str(root / "train/1.jpg"), noise(1, 13))
    result = audit.audit(root, images=False)
    assert kinds(result) == ["leakage_path", "leakage_path"] and result["breaks"] == 2
    paths = {pair: shared["path"] for pair, shared in result["leakage"].items()}
    assert paths == {"train/valid": ["train/2.png"], "train/test": ["train/1.jpg"], "valid/test": []}


def test_leakage_by_content_and_by_pixels(tmp_path):
    root = write_toy(tmp_path / "toy")
    shutil.copy(root / "train/5.jpg", root / "test/1.jpg")
    cv2.imwrite(
        str(root / "test/4.png"), noise(2, 14), [cv2.IMWRITE_PNG_COMPRESSION, 0]
    )  # the pixels of train/2.png
    result = audit.audit(root)
    assert kinds(result)[:2] == ["leakage_content", "leakage_pixels"] and result["breaks"] == 2
    shared = result["leakage"]["train/test"]
    assert shared["content"] == [["train/5.jpg", "test/1.jpg"]] and shared["pixels"] == [
        ["train/2.png", "test/4.png"]
    ]
    assert not any(result["leakage"]["valid/test"].values())
    assert main(["audit", str(root), "--strict"]) == 1


def test_an_image_leaks_once():
    """a: in both lists; b: a copy of it; c: its pixels in another file; d: a copy within test alone."""
    listed = {"a": [("train", 0), ("test", 0)], "b": [("test", 1)], "c": [("test", 2)], "d": [("test", 3)]}
    same = {"content": [["a", "b"]], "pixels": [["a", "b", "c"]]}
    expected = {"path": ["a"], "content": [["a", "b"]], "pixels": [["a", "c"]]}
    assert looking.leakage(("train", "test"), listed, same) == {"train/test": expected}


@pytest.mark.parametrize("how", ["path", "copy"])
def test_a_query_among_its_own_candidates_is_found(tmp_path, how):
    if how == "path":
        root = write_toy(tmp_path / "toy", rows={"candidate": [*ROWS["candidate"], [1, 0, 1], [1, 1, 0]]})
        found = audit.audit(root, images=False)["own_candidates"]
        expected = [{"query": "test/1.jpg", "candidate": "test/1.jpg", "attribute": "tone"}]
    else:
        root = write_toy(tmp_path / "toy")
        shutil.copy(root / "test/1.jpg", root / "test/2.png")  # image 2 is a candidate of both attributes
        found = audit.audit(root)["own_candidates"]
        expected = [{"query": "test/1.jpg", "candidate": "test/2.png", "attribute": "tone"}]
    assert found["test"] == expected
    assert (found["valid"] == []) == (how == "copy")


def test_unanswered_queries_set_the_ceilings(tmp_path):
    query = [[0, 0, 0], [1, 0, 1], [1, 0, 2], [0, 1, 1]]  # nothing is light
    result = audit.audit(write_toy(tmp_path / "toy", rows={"query": query}))
    test = result["splits"]["test"]
    assert test["unanswered"] == 1 and test["ceiling_weighted"] == 75
    assert test["ceiling_macro"] == pytest.approx((200 / 3 + 100) / 2)
    assert test["attributes"]["tone"]["ceiling"] == pytest.approx(200 / 3)
    found = {each["text"] for each in result["findings"] if each["kind"] == "unanswered"}
    assert (
        "test: 1 of 4 queries has no relevant candidate: AP 0, so that overall mAP is at most 75.00, "
        "its plain mean 83.33: tone light (1)" in found
    )
    assert any(
        "more than" in text or "several values" in text for text in (e["text"] for e in result["findings"])
    )


def test_values_without_a_triplet(tmp_path):
    train = [[i, 0, 0] for i in range(5)] + [[5, 0, 1]] + [[i, 1, 1] for i in range(6)]
    result = audit.audit(write_toy(tmp_path / "toy", rows={"train": train}))
    idle = [
        (v["attribute"], v["value"], v["images"], v["why"]) for v in result["splits"]["train"]["no_anchor"]
    ]
    assert idle == [
        ("tone", "mid", 1, "one image"),
        ("tone", "light", 0, "no image"),
        ("size", "small", 0, "no image"),
        ("size", "large", 6, "every labelled image has it"),
    ]
    assert result["splits"]["train"]["no_triplet"] == ["size"] and result["breaks"] == 0
    assert not result["splits"]["test"]["unseen"], "nobody asks for what train lacks"
    no_mid = [[i, 0, 0 if i % 2 else 2] for i in range(6)] + ROWS["train"][6:]
    unseen = audit.audit(write_toy(tmp_path / "other", rows={"train": no_mid}))["splits"]["test"]["unseen"]
    assert unseen == [{"attribute": "tone", "label": 1, "queries": 1}]


def test_no_triplet_at_all_breaks_training(tmp_path):
    train = [[i, 0, 0] for i in range(6)] + [[i, 1, 1] for i in range(6)]
    result = audit.audit(write_toy(tmp_path / "toy", rows={"train": train}))
    assert [each["kind"] for each in result["findings"] if each["breaks"]] == ["no_triplet"]


@pytest.mark.parametrize("seed", range(20))
def test_what_the_audit_calls_an_anchor_the_sampler_draws(seed, tmp_path):
    """Against `ValueIndex`, which the samplers use."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.integers(0, 6, 9), rng.integers(0, 2, 9), rng.integers(0, 2, 9)], axis=1)
    train = audit.audit(write_toy(tmp_path / "toy", rows={"train": rows}), images=False)["splits"]["train"]
    idle = {(v["attribute"], v["label"]) for v in train["no_anchor"]}
    try:
        index = ValueIndex(rows, 2)
    except ValueError:
        assert train["no_triplet"] == ["tone", "size"]
        return
    labels = [np.unique(rows[rows[:, 1] == c, 2]) for c in range(2)]
    drawn = {(TOY.names[c], labels[c][v]) for c in range(2) for v in index.anchors[c]}
    assert drawn == {(TOY.names[c], v) for c in range(2) for v in range(TOY.sizes[c])} - idle
    assert train["no_triplet"] == [TOY.names[c] for c in range(2) if c not in index.usable]


def test_the_share_of_several_values_counts_by_the_attribute_asked(tmp_path):
    root = write_toy(tmp_path / "toy")
    wrong = [
        "0 1 0 1 1 2 3",
        "1 1 1",
        "2 1 0 2 4",
        "3 1 1 2 3 1 2",
        "4 1 0",
    ]  # as DeepFashion: from 1, and over all
    (root / "label_test.txt").write_text("\n".join(wrong) + "\n")
    with pytest.raises(DataError, match="query_test.txt, line 3"):  # image 0 is large there, and small here
        audit.audit(root)
    every = ["0 1 0 1 1 2 4", "1 1 1", "2 1 0 1 2 2 3 2 4", "3 1 1 2 3", "4 1 0"]
    (root / "label_test.txt").write_text("\n".join(every) + "\n")
    several = audit.audit(root)["splits"]["test"]["several"]
    # of 8 rows: images 0 and 2 have two tones (2 rows), image 2 two sizes (1 row)
    assert (several["rows"], several["of"], several["share"]) == (3, 8, 37.5) and several[
        "source"
    ] == "label_test.txt"
    assert several["per_attribute"] == {"tone": 40.0, "size": pytest.approx(100 / 3)}


def test_several_valued_agrees_with_a_plain_loop():
    rng = np.random.default_rng(5)
    for _ in range(30):
        rows = rng.integers(0, 4, (rng.integers(1, 12), 3))
        every = rng.integers(0, 4, (rng.integers(1, 20), 3))
        values = [
            {tuple(r) for r in [*rows.tolist(), *every.tolist()] if r[:2] == row[:2]} for row in rows.tolist()
        ]
        assert several_valued(rows, every).tolist() == [len(v) > 1 for v in values]


def test_the_readers_notes_are_there(tmp_path):
    root = write_toy(tmp_path / "toy", names={"test/1.jpg": "test/0.png"})
    query = root / "query_test.txt"
    query.write_bytes(b"0 0 0\r\n1 0 1\r0 1 1\t\r\n")
    texts = "\n".join(each["text"] for each in audit.audit(root)["findings"])
    for note in (
        "query_test.txt: 2 lines with CRLF",
        "1 line with a lone CR",
        "1 line padded with tabs",
        "1 path more than once in filenames_test.txt, e.g. 'test/0.png' in lines 1, 2",
    ):
        assert note in texts


def test_lists_alone_are_enough(tmp_path):
    root = write_toy(tmp_path / "toy", images=False)
    (root / "filenames_train.txt").unlink()
    result = audit.audit(root)
    assert result["images"]["none_here"] and result["images"]["n_missing"] == 10 and result["breaks"] == 1
    assert result["splits"]["train"]["labels_only"] and result["splits"]["train"]["images"] == 6
    assert result["splits"]["train"]["attributes"]["tone"]["images"] == [2, 2, 2]
    assert list(result["leakage"]) == ["valid/test"]
    text = table(result)
    assert "images: none of 10 is here" in text and "label_train.txt (12 rows) found alone" in text
    assert len(json.dumps(result)) < 8000, "missing images are not listed when all are"
    with pytest.raises(DataError, match="is not a folder"):
        audit.audit(tmp_path / "absent")


@pytest.mark.parametrize(
    "name,dataset",
    [
        ("FashionAI", "FashionAI"),
        ("zappos50k", "Zappos50k"),
        ("UT-Zappos50K", "Zappos50k"),
        ("DARN", "DARN"),
        ("garments", None),
    ],
)
def test_table_1_stands_beside_the_papers_data_sets(name, dataset):
    splits = {"train": {"images": 7, "labels_only": True}, "test": {"images": 5, "labels_only": False}}
    beside = beside_table1(name, (3, 2), splits, 5)
    assert (beside and beside["dataset"]) == dataset
    if beside:
        assert (
            beside["here"] == {"attributes": 2, "classes": 5, "images": 12}
            and "without valid" in beside["note"]
        )
        assert ("214,619" in beside["note"]) == (name == "DARN")
    if name == "FashionAI":
        assert beside["paper"] == {"attributes": 8, "classes": 55, "images": 180335}


def test_few_files_are_held_at_a_time_and_their_order_is_kept(monkeypatch, tmp_path):
    """A file is held while it is looked at: no more of them than threads."""
    lock, held, most = threading.Lock(), [0], [0]

    def look(root, path):
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        time.sleep(0.001 * (int(path) % 3))
        with lock:
            held[0] -= 1
        return looking.Seen(path)

    monkeypatch.setattr(looking, "look", look)
    paths = [str(i) for i in range(500)]
    for i, seen in enumerate(looking.look_at_all(tmp_path, paths, threads=2)):
        assert seen.path == paths[i]
    assert i == 499 and most[0] == 2


@pytest.mark.parametrize(
    "argv",
    [
        ["DIR"],
        ["DIR", "--strict"],
        ["--no-images", "DIR"],
        ["--plot", "x.png", "DIR"],
        ["--threads=2", "DIR"],
        ["--data", "DIR"],
        ["--json", "--threads", "3", "DIR"],
    ],
)
def test_the_folder_may_stand_anywhere(argv):
    config = parse("audit", argv)
    assert str(config.data) == "DIR" and ("--strict" in argv) == config.strict
    assert config.images == ("--no-images" not in argv) and str(config.plot) == (
        "x.png" if "x.png" in argv else "None"
    )


def test_json_and_plot_of_the_command(tmp_path, capsys):
    root, plot = write_toy(tmp_path / "toy"), tmp_path / "plots" / "counts.png"
    os.remove(root / "train/1.jpg")
    assert main(["audit", str(root), "--json", "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result == json.loads(json.dumps(audit.audit(root)))
    assert table(result) in out
    assert plot.stat().st_size < 80_000 and Image.open(plot).size[0] > 400
    with pytest.raises(SystemExit):
        main(["audit", "--paper", "--plot", str(plot)])
    assert "--plot draws a data set" in capsys.readouterr().err


def test_the_plot_draws_every_count(tmp_path):
    from ccakit.audit.plot import plot

    train = [[i, 0, 0] for i in range(5)] + [[5, 0, 1]] + ROWS["train"][6:]
    figure = plot(audit.audit(write_toy(tmp_path / "toy", rows={"train": train}), images=False))
    tone, size = figure.axes
    drawn = [line.get_ydata().tolist() for line in tone.lines]
    assert [5, 1, 0] in drawn and drawn.count([3, 2, 0]) == 2, "train once, valid and test alike"
    assert [1, 0] in drawn and drawn.count([0]) == 2, "values with few images are marked"
    assert tone.get_title() == "tone" and sum(line.get_marker() == "None" for line in size.lines) == 3
    assert "symlog" in tone.get_yscale()


@pytest.mark.parametrize(
    "name,share,unanswered,ceiling,classes",
    [
        ("FashionAI", 0.0, 0, 100.0, 54),
        pytest.param("DARN", 0.0, 3, 99.93, 185, marks=pytest.mark.slow),
        pytest.param("DeepFashion", 46.3, 23, 99.58, 1000, marks=pytest.mark.slow),
    ],
)
def test_the_real_splits(splits, tmp_path, name, share, unanswered, ceiling, classes):
    from ccakit.audit.plot import plot
    from ccakit.show.style import save

    result = audit.audit(splits / name)
    test = result["splits"]["test"]
    assert round(test["several"]["share"], 1) == share and test["unanswered"] == unanswered
    assert round(test["ceiling_weighted"], 2) == ceiling and result["table1"]["here"]["classes"] == classes
    texts = "\n".join(each["text"] for each in result["findings"])
    assert ("CRLF" in texts) == (name != "DARN") and ("1 path more than once" in texts) == (
        name == "DeepFashion"
    )
    assert ("of 5525 queries have no relevant candidate" in texts) == (name == "DeepFashion")
    assert result["images"]["none_here"] and not any(result["leakage"]["valid/test"].values())
    assert not result["own_candidates"]["test"]
    assert save(plot(result), tmp_path / "x.png", dpi=90).stat().st_size < 80_000
    if name == "FashionAI":
        assert result["table1"]["here"]["images"] == result["table1"]["paper"]["images"] == 180335
