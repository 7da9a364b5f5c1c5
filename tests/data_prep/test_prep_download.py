"""data_prep/download.py against a local server: what is asked, tried again, left alone and remembered."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from picture_server import FAST, Server, picture, serving
from places import DATA_PREP

from ccakit.errors import DataError

FOLDER = DATA_PREP
sys.path.insert(0, str(FOLDER))

import download  # noqa: E402


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as made:
        yield made


OUTCOMES = {
    "ok/3": "downloaded",
    "moved/4": "downloaded",
    "busy/5": "downloaded",
    "gone/1": "HTTP 404",
    "page/1": "a web page, no image",
    "short/1": "cut short",
    "broken/1": "broken, or no image",
    "empty/1": "empty",
    "loop/1": "redirect that cannot be followed",
    "local/1": "redirect that cannot be followed",
    "ftp/1": "redirect that cannot be followed",
    "big/1": "more than 0.190735 MB",
    "slow/1": "timeout",
    "drip/1": "timeout",
}


def test_every_way_to_fail_has_its_reason_and_is_remembered(server: Server, tmp_path: Path) -> None:
    urls = {f"pic/{i}/a_{i}.jpg": f"{server.url}/{path}" for i, path in enumerate(OUTCOMES)}
    urls |= {
        "pic/x.jpg": "file:///etc/hostname",
        "pic/y.jpg": "http://[bad/",
        "pic/z.jpg": "http://127.0.0.1:9/gone",
    }
    made = download.Downloader(tmp_path, tmp_path / "log.jsonl", FAST, threads=6)
    got = made.run(urls)
    want = Counter(
        [*OUTCOMES.values(), "no http or https address", "no http or https address", "no connection"]
    )
    assert got == want
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["log.jsonl", "pic/0/a_0.jpg", "pic/1/a_1.jpg", "pic/2/a_2.jpg"]  # nothing half-done
    assert (tmp_path / "pic/1/a_1.jpg").read_bytes() == picture(4)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if line]
    assert {entry["path"]: entry["url"] for entry in log} == urls and Counter(
        e["outcome"] for e in log
    ) == want
    assert server.asked["/short/1"] == 2 and server.asked["/slow/1"] == 2  # tried again
    assert server.asked["/gone/1"] == server.asked["/page/1"] == 1  # not worth another try


def test_a_second_run_asks_only_for_what_is_new(server: Server, tmp_path: Path) -> None:
    def run(urls: dict[str, str], retry_failed: bool = False) -> Counter:
        server.asked.clear()
        return download.Downloader(tmp_path, tmp_path / "log", FAST, threads=3).run(urls, retry_failed)

    urls = {f"{i}.jpg": f"{server.url}/ok/{i}" for i in range(12)} | {"gone.jpg": f"{server.url}/gone/1"}
    assert run(dict(list(urls.items())[:5])) == {"downloaded": 5}
    assert run(urls) == {"present": 5, "downloaded": 7, "HTTP 404": 1}
    assert set(server.asked) == {f"/ok/{i}" for i in range(5, 12)} | {"/gone/1"}
    (tmp_path / "3.jpg").unlink()
    with open(tmp_path / "log", "a", encoding="utf-8") as log:
        log.write('{"path": "4.jpg", "url"')  # cut short by a crash
    assert run(urls) == {"present": 11, "downloaded": 1, "HTTP 404": 1} and set(server.asked) == {"/ok/3"}
    assert run(urls, retry_failed=True) == {"present": 12, "HTTP 404": 1} and set(server.asked) == {"/gone/1"}
    moved = urls | {"gone.jpg": f"{server.url}/ok/99"}  # another address is another try
    assert run(moved) == {"present": 12, "downloaded": 1} and set(server.asked) == {"/ok/99"}
    assert run(moved) == {"present": 13} and not server.asked


def test_a_silent_host_is_left_alone(tmp_path: Path) -> None:
    urls = {f"{i}.jpg": f"http://127.0.0.1:9/{i}.jpg" for i in range(20)}
    fetcher = download.Fetcher(timeout=0.2, tries=1)
    got = download.Downloader(tmp_path, tmp_path / "log", fetcher, threads=1, patience=4).run(urls)
    assert got == {"no connection": 4, download.SILENT: 16}
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [entry["path"] for entry in log] == [f"{i}.jpg" for i in range(4)], "only those that were asked"


def test_after_an_outage_the_same_command_goes_on(server: Server, tmp_path: Path) -> None:
    """No connection to anything, for a run; then all is asked for, but for what failed for good before."""
    urls = {f"{i}.jpg": f"{server.url}/ok/{i}" for i in range(12)} | {"gone.jpg": f"{server.url}/gone/1"}

    def run(fetcher: download.Fetcher) -> Counter:
        return download.Downloader(tmp_path, tmp_path / "log", fetcher, threads=1, patience=4).run(urls)

    class Cut(download.Fetcher):
        def _once(self, url: str) -> bytes:
            if url.endswith("/gone/1"):
                return super()._once(url)
            raise download.Dead("no connection")

    urls = dict(reversed(urls.items()))  # the one that answers first
    assert run(Cut(tries=1)) == {"HTTP 404": 1, "no connection": 4, download.SILENT: 8}
    with open(tmp_path / "log", "a", encoding="utf-8") as log:  # as a log of old may have it
        log.write(json.dumps({"path": "0.jpg", "url": urls["0.jpg"], "outcome": download.SILENT}) + "\n")
    server.asked.clear()
    assert run(FAST) == {"HTTP 404": 1, "downloaded": 12} and set(server.asked) == {
        f"/ok/{i}" for i in range(12)
    }
    assert run(FAST) == {"HTTP 404": 1, "present": 12}


@pytest.mark.parametrize("reason", ["no connection", "timeout", "cut short", "HTTP 503", "HTTP 429"])
def test_what_may_pass_is_asked_again_and_what_lasts_is_not(
    server: Server, tmp_path: Path, reason: str
) -> None:
    def entry(i: int, outcome: str) -> str:
        return json.dumps({"path": f"{i}.jpg", "url": f"{server.url}/ok/{i}", "outcome": outcome})

    lasting = ["HTTP 404", "a web page, no image", "broken, or no image", "empty", download.REDIRECT]
    (tmp_path / "log").write_text("\n".join(entry(i, each) for i, each in enumerate([*lasting, reason])))
    urls = {f"{i}.jpg": f"{server.url}/ok/{i}" for i in range(6)}
    got = download.Downloader(tmp_path, tmp_path / "log", FAST).run(urls)
    assert got == Counter([*lasting, "downloaded"]) and set(server.asked) == {"/ok/5"}


def test_an_error_of_this_machine_stops_the_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pic").write_text("a file where a folder must be")
    urls = {f"pic/{i}.jpg": f"{server.url}/ok/{i}" for i in range(50)}
    with pytest.raises(OSError):
        download.Downloader(tmp_path, tmp_path / "log", FAST, threads=2).run(urls)


def test_lists_of_addresses(tmp_path: Path) -> None:
    path = tmp_path / "urls.txt"
    path.write_bytes(
        b"pic/1.jpg\thttp://a/1.jpg\r\n\r\n  pic/2.jpg   http://a/2.jpg 7\t\r\npic/1.jpg http://b/1.jpg"
    )
    assert download.read_urls([path]) == {"pic/1.jpg": "http://a/1.jpg", "pic/2.jpg": "http://a/2.jpg"}
    for bad, problem in (
        (b"pic/1.jpg", "no address"),
        (b"../1.jpg http://a/1", "outside"),
        (b"/e http://a/1", "outs"),
    ):
        path.write_bytes(b"pic/0.jpg http://a/0\n\n" + bad)
        with pytest.raises(DataError, match=problem) as caught:
            download.read_urls([path])
        assert caught.value.line == 3
