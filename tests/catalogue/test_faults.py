"""What goes wrong with a catalogue: kills, writers and readers at once, full disks, damaged files."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import lancedb
import pyarrow as pa
import pytest
from catalogue_shop import COUNT, fill_alone, fill_and_die, fill_on_a_full_disk, fill_shop, make_shop, rows_of
from ranks import run_ranks, torchrun

import ccakit
from ccakit.catalogue import store
from ccakit.catalogue.columns import add_columns
from ccakit.catalogue.explain import explain
from ccakit.catalogue.store import create_table, exists, open_table, write_about
from ccakit.catalogue.upkeep import optimize
from ccakit.cli import main
from ccakit.errors import DataError

COMMIT = 8
POINTS = [
    *(f"embed {number}" for number in range(6)),
    *(f"{when} {number}" for when in ("before", "after") for number in range(3)),
    *(f"during {number} {after}" for number in range(2) for after in (1, 4, 7, 12)),
]
FEW = ("embed 2", "before 1", "after 1", "during 1 7")


@pytest.fixture
def new_shop(tmp_path):
    """A shop without a catalogue."""
    make_shop(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "point", [point if point in FEW else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]
)
def test_a_kill_leaves_whole_commits_and_the_same_call_goes_on(new_shop, filled, point):
    assert run_ranks(1, fill_and_die, str(new_shop), point, check=False).codes == [-9]
    there = rows_of(new_shop) if exists(str(new_shop / "catalogue")) else {}
    expected = rows_of(filled)
    assert len(there) % COMMIT == 0 and there == {name: expected[name] for name in there}
    report = fill_shop(new_shop)
    assert report.embedded == COUNT - len(there) and rows_of(new_shop) == expected


def test_there_are_twenty_points():
    assert len(set(POINTS)) == 20 and set(FEW) < set(POINTS)


def test_two_processes_write_the_rows_of_one(new_shop, filled):
    run_ranks(2, fill_alone, str(new_shop))
    assert rows_of(new_shop) == rows_of(filled)


@pytest.mark.slow
def test_torchrun_indexes_the_rows_of_one(new_shop, filled):
    (new_shop / "photos" / "torn.png").write_bytes(b"no picture")
    with open(new_shop / "shop.csv", "a", encoding="utf-8") as table:
        table.write("torn.png,1,x,dark,1\n")
    options = dict(run="run", images="photos", table="shop.csv", out="catalogue")
    words = [word for name, value in options.items() for word in (f"--{name}", new_shop / value)]
    ended = torchrun(2, "command", "index", *words, "--batch-size", "4", "--commit", "8")
    assert rows_of(new_shop) == rows_of(filled)
    assert ended.stdout.count(f"{COUNT} items; {COUNT} embedded") == 1, "one process speaks"
    assert ended.stderr.count("unreadable: torn.png") == 1


def test_two_writers_at_once_add_each_item_once(new_shop, filled):
    """They know nothing of each other, and write the same items."""
    create = threading.Barrier(2)

    def write() -> None:
        create.wait()
        run_ranks(1, fill_alone, str(new_shop))

    with ThreadPoolExecutor(2) as pool:
        for writer in [pool.submit(write) for _ in range(2)]:
            writer.result()  # raises what went wrong in it
    table, _ = open_table(str(new_shop / "catalogue"))
    assert table.count_rows() == COUNT and rows_of(new_shop) == rows_of(filled)


@pytest.mark.parametrize("what", ["the same column", "a column each", "what it says", "indexes"])
def test_writers_that_change_the_table_at_once_all_get_through(shop, what):
    """The engine lets one of them through; the others have to look again, and go on."""
    uri, writers = str(shop / "catalogue"), 3
    together = threading.Barrier(writers, timeout=60)

    def write(number: int) -> None:
        table, about = open_table(uri)
        for turn in range(3):
            column = f"new {turn}" + (f" of {number}" if what == "a column each" else "")
            together.wait()
            if what == "what it says":
                write_about(uri, table, replace(about, run=f"run {number}"))
            elif what == "indexes":
                optimize(ccakit.open_catalogue(uri), from_rows=COUNT, queries=0)
            else:
                add_columns(uri, table, pa.table({column: pa.array([1.0])}))

    with ThreadPoolExecutor(writers) as pool:
        for writer in [pool.submit(write, number) for number in range(writers)]:
            writer.result()  # raises what went wrong in it
    table, about = open_table(uri)
    new = [name for name in table.schema.names if name.startswith("new")]
    assert len(new) == {"the same column": 3, "a column each": 9}.get(what, 0)
    assert table.count_rows() == COUNT
    assert about.run.startswith("run ") == (what == "what it says")
    assert len(table.list_indices()) == (len(about.spaces) + 2) * (what == "indexes")


def test_an_engine_that_never_lets_a_writer_through_is_one_error(monkeypatch):
    tries = []

    def work() -> None:
        tries.append(1)
        raise RuntimeError("Retryable commit conflict for version 3: preempted. Please retry.")

    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    with pytest.raises(DataError, match="shop: the engine says: Retryable commit conflict"):
        store.change("shop", work)
    assert len(tries) == store.ATTEMPTS


def test_a_catalogue_that_is_there_already_is_not_made_again(filled):
    uri = str(filled / "catalogue")
    table, about = open_table(uri)
    create_table(uri, about, embed_dim=8)  # as the second of two writers does
    assert open_table(uri)[0].count_rows() == table.count_rows() == COUNT


def test_a_reader_during_a_write_sees_whole_commits(new_shop):
    fill_shop(new_shop)
    catalogue, seen, done = ccakit.open_catalogue(new_shop / "catalogue"), [], threading.Event()
    table = catalogue.table
    table.delete("true")
    errors = []

    def read() -> None:
        while not done.is_set():
            try:
                spaces = ccakit.open_catalogue(new_shop / "catalogue")
                seen.append(len(spaces))
            except Exception as error:  # noqa: BLE001 - any would be a fault
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    report = fill_shop(new_shop)
    done.set()
    reader.join()
    assert not errors and report.embedded == COUNT and seen == sorted(seen)
    assert {count % COMMIT for count in seen} == {0}
    found = catalogue.search(id="pic 00.png", conditions="tone", k=99)  # an opened catalogue sees what is new
    assert len(found) == COUNT - 1


def test_a_full_disk_is_one_line_and_nothing_is_lost(shop):
    before = rows_of(shop)
    (shop / "photos" / "pic 00.png").write_bytes((shop / "photos" / "pic 01.png").read_bytes())
    printed = run_ranks(1, fill_on_a_full_disk, str(shop)).stdout
    assert (
        printed.count("\n") == 1 and "the disk is full" in printed and "the same command goes on" in printed
    )
    assert rows_of(shop) == before
    assert fill_shop(shop).embedded == 1


def test_a_catalogue_of_another_version_is_refused(shop, capsys):
    table, about = open_table(str(shop / "catalogue"))
    write_about(str(shop / "catalogue"), table, replace(about, format=0, ccakit="0.1.0"))
    problem = "was written by ccakit 0.1.0 in format 0; this one reads 1. Make it again"
    with pytest.raises(DataError, match=problem):
        ccakit.open_catalogue(shop / "catalogue")
    with pytest.raises(DataError, match=problem):
        fill_shop(shop)
    assert main(["catalogue", "info", "--catalogue", str(shop / "catalogue")]) == 1
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png"])
def test_a_path_in_the_catalogue_leads_nowhere_else(shop, tmp_path, path):
    """Somebody may hand on a catalogue that names files of the reader's."""
    (shop / "photos" / "link.png").symlink_to(tmp_path / "secret.png")
    table, _ = open_table(str(shop / "catalogue"))
    table.update(where="id = 'pic 03.png'", values={"path": path})
    catalogue = ccakit.open_catalogue(shop / "catalogue")
    with pytest.raises(DataError, match="lies outside the folder"):
        catalogue.picture("pic 03.png")
    found = catalogue.search(id="pic 04.png", conditions="tone", where="id = 'pic 03.png'")
    with pytest.raises(DataError, match="lies outside the folder"):
        explain(catalogue, found, id="pic 04.png")


def test_what_is_no_catalogue_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a catalogue. Make one: ccakit index"):
        ccakit.open_catalogue(tmp_path)
    lancedb.connect(tmp_path).create_table("items", pa.table({"id": ["a"]}))
    with pytest.raises(DataError, match="is a LanceDB table, but no catalogue of ccakit"):
        ccakit.open_catalogue(tmp_path)


@pytest.mark.parametrize("files", ["data/*.lance", "_versions/*.manifest"])
@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_a_truncated_file_is_one_line(shop, files, keep):
    for file in (shop / "catalogue" / "items.lance").glob(files):
        data = file.read_bytes()
        file.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError) as caught:
        ccakit.open_catalogue(shop / "catalogue").search(id="pic 00.png", conditions="tone")
    text = str(caught.value)
    assert text.startswith(str(shop / "catalogue")) and "\n" not in text and ".rs:" not in text


def test_without_lancedb_one_line_says_what_to_install(monkeypatch, capsys, filled):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    assert main(["search", "--catalogue", str(filled / "catalogue"), "--id", "x", "--condition", "tone"]) == 1
    assert "pip install 'ccakit[catalogue]'" in capsys.readouterr().err
    assert main(["index", "--run", str(filled / "run"), "--images", str(filled / "photos")]) == 1
    assert "pip install 'ccakit[catalogue]'" in capsys.readouterr().err
