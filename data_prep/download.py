"""Download images by their addresses: several at a time, with limits, checks of the content, and a log.

    read_urls(files)                          lists of lines `path address` -> {path: address}
    Downloader(folder, log, Fetcher()).run(urls)   -> the number of images for each outcome

The scripts of this folder import it as `download`.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

from common import check_name
from tqdm import tqdm

from ccakit.data.images import read_image
from ccakit.data.text import read_lines
from ccakit.disk import atomic_write
from ccakit.errors import DataError

MEGABYTE = 1 << 20
SAFE = "%/:=&?~#+!$,;'@()*[]"  # in an address; the rest, Chinese names among it, is written as %..
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}  # answers after which another try may help
SILENT, REDIRECT = "its host does not answer", "redirect that cannot be followed"
UNANSWERED = ("timeout", "no connection")
PASSING = {
    *UNANSWERED,
    "cut short",
    SILENT,
    *(f"HTTP {code}" for code in TEMPORARY),
}  # reasons that may not last


class Dead(Exception):
    """The reason why an address gave no image; `again`: whether another try may help."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason, self.again = reason, reason in PASSING


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only; urllib itself stops after ten, or at a loop."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not _is_web(newurl):
            raise Dead(REDIRECT)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


@dataclass(frozen=True)
class Fetcher:
    """Fetch the bytes of an address, within limits.

    timeout: seconds to wait for a connection and for each part of the answer; the complete answer may take
    six times as long. tries: requests at most; the waits between them are `backoff` seconds, then twice, then
    four times that.
    """

    timeout: float = 20.0
    tries: int = 3
    backoff: float = 1.0
    most_bytes: int = 20 * MEGABYTE

    def fetch(self, url: str, stop: threading.Event) -> bytes:
        """Return the body of the answer; raises Dead with the reason when no try is left."""
        for attempt in range(self.tries):
            try:
                return self._once(url)
            except Dead as dead:
                if not dead.again or attempt + 1 == self.tries or stop.wait(self.backoff * 2**attempt):
                    raise
        raise AssertionError("tries is at least 1")

    def _once(self, url: str) -> bytes:
        if not _is_web(url):
            raise Dead("no http or https address")
        opener = urllib.request.build_opener(_Redirects)
        try:
            request = urllib.request.Request(quote(url, SAFE), headers={"User-Agent": "ccakit data_prep"})
            with opener.open(request, timeout=self.timeout) as response:
                return self._body(response)
        except urllib.error.HTTPError as error:
            raise Dead(REDIRECT if 300 <= error.code < 400 else f"HTTP {error.code}") from None
        except TimeoutError:
            raise Dead("timeout") from None
        except http.client.IncompleteRead:
            raise Dead("cut short") from None
        except urllib.error.URLError as error:
            late = isinstance(error.reason, TimeoutError)
            raise Dead("timeout" if late else "no connection") from None
        except (ValueError, http.client.InvalidURL):  # an address that is none
            raise Dead("no http or https address") from None
        except (OSError, http.client.HTTPException):
            raise Dead("no connection") from None

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """Read the answer: no more bytes than allowed, and no fewer than announced."""
        announced, parts, size = response.length, [], 0
        end = time.monotonic() + 6 * self.timeout
        while part := response.read1(64 << 10):
            size += len(part)
            parts.append(part)
            if size > self.most_bytes:
                raise Dead(f"more than {self.most_bytes / MEGABYTE:g} MB")
            if time.monotonic() > end:
                raise Dead("timeout")
        if announced is not None and size < announced:
            raise Dead("cut short")
        return b"".join(parts)


def store(data: bytes, path: Path) -> None:
    """Write an image file completely or not at all; raises Dead if it does not decode as an image."""
    if not data:
        raise Dead("empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(data)
            read_image(partial)
    except DataError:
        web = data.lstrip()[:1] == b"<"
        raise Dead("a web page, no image" if web else "broken, or no image") from None


def read_urls(paths: Sequence[Path]) -> dict[str, str]:
    """Read lists of lines `path address`, separated by spaces or tabs, as {image path: address}.

    Of several addresses of a path, the first counts. DataError for a line without an address, or a path that
    leaves the folder.
    """
    urls: dict[str, str] = {}
    for path in paths:
        text = read_lines(path)
        rows = [(number, line.split()) for number, line in enumerate(text.lines, 1) if line.strip()]
        for number, cells in rows:
            if len(cells) < 2:
                raise DataError(path, "has no address after the image's path", "Write: path address.", number)
            check_name(path, cells[0], number)
            urls.setdefault(cells[0], cells[1])
    return urls


def read_log(path: Path) -> dict[tuple[str, str], str]:
    """Read the failures in the log, {(path, address): reason}; a line that a crash cut short is ignored."""
    failed: dict[tuple[str, str], str] = {}
    if not path.exists():
        return failed
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
            key = entry["path"], entry["url"]
            if entry["outcome"] == "downloaded":
                failed.pop(key, None)
            else:
                failed[key] = str(entry["outcome"])
        except (ValueError, TypeError, KeyError):
            continue
    return failed


class Downloader:
    """Download images, several at a time, and keep a log of the outcomes, a JSON object a line.

    An image that is in `folder` is not downloaded again, nor is one that failed before for a lasting reason
    (`retry_failed` tries those, too). After `patience` failures to answer in a row, a host is skipped for
    this run: its other addresses are not tried, and not logged.
    """

    def __init__(
        self, folder: Path, log: Path, fetcher: Fetcher, threads: int = 8, patience: int = 25
    ) -> None:
        self.folder, self.log, self.fetcher = folder, log, fetcher
        self.threads, self.patience = threads, patience
        self.silent: Counter[str] = Counter()
        self.lock, self.stop = threading.Lock(), threading.Event()

    def run(self, urls: dict[str, str], retry_failed: bool = False) -> Counter[str]:
        """Download all.

        Return the number of addresses for each outcome: {"present": n, "downloaded": n, reason: n}.
        """
        before = {} if retry_failed else read_log(self.log)
        before = {key: reason for key, reason in before.items() if reason not in PASSING}
        outcomes, todo = Counter(), []
        for name, url in urls.items():
            if (self.folder / name).is_file():
                outcomes["present"] += 1
            elif (name, url) in before:
                outcomes[before[name, url]] += 1
            else:
                todo.append((name, url))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(self.log, "a", encoding="utf-8") as log,
            tqdm(total=len(todo), desc="download", unit="img") as bar,
        ):
            if log.tell():
                log.write("\n")  # after a line that a crash cut short; empty lines are passed over
            self._all(iter(todo), outcomes, log, bar)
        return outcomes

    def _all(self, todo: Iterator, outcomes: Counter[str], log: TextIO, bar: tqdm) -> None:
        def work() -> None:
            while not self.stop.is_set():
                with self.lock:
                    item = next(todo, None)
                if item is None:
                    return
                outcome = self._one(*item)
                if self.stop.is_set() and outcome != "downloaded":
                    return  # its tries were cut off: no failure to remember
                with self.lock:
                    outcomes[outcome] += 1
                    bar.update()
                    if outcome != SILENT:
                        log.write(json.dumps({"path": item[0], "url": item[1], "outcome": outcome}) + "\n")
                        log.flush()

        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for future in [pool.submit(work) for _ in range(self.threads)]:
                    future.result()
            finally:
                self.stop.set()  # Ctrl-C, or an error in one thread, ends the others after their image

    def _one(self, name: str, url: str) -> str:
        host = "/".join(url.split("/", 3)[:3])
        if self.silent[host] >= self.patience:
            return SILENT
        try:
            store(self.fetcher.fetch(url, self.stop), self.folder / name)
            self.silent[host] = 0
            return "downloaded"
        except Dead as dead:
            self.silent[host] = self.silent[host] + 1 if dead.reason in UNANSWERED else 0
            return dead.reason
