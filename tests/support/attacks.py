"""Damaged versions of a file for its reader, which is watched: for the tests of hostile input.

Damaged are valid files, at random places: bytes changed, cut, doubled, lines repeated or swapped, and things
put in that readers stumble over. A reader may not raise anything but DataError, take long, or open a file
outside its folder.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ccakit.errors import DataError

SECONDS = 5  # of processor time, for one file
A_BATCH = 10  # files an example of hypothesis damages
STUMBLING = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\r\n",
    b"\n\n\n",
    b"\x00",
    b"\t",
    b" ",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x85",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xc2\xa0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc3",
    "٣".encode(),
    "²".encode(),
    "½".encode(),
    b"-1",
    b"+1",
    b"1_0",
    b"0x1",
    b"007",
    b"1.0",
    b"1e9",
    b"1e999",
    b"-1e-999",
    b"nan",
    b"Infinity",
    b"NaN",
    b"9" * 19,
    b"9" * 40,
    b"9" * 5000,
    str(2**63).encode(),
    str(2**64 + 1).encode(),
    b"0 " * 300,
    b"../",
    b"/etc/passwd",
    b"..\\..\\",
    b"C:\\x",
    b"~/x",
    b"file:///x",
    b"%2e%2e/",
    b"a/" * 2000,
    b'"',
    b"'",
    b",",
    b";",
    b"|",
    b"{",
    b"}",
    b"[" * 3000,
    b"]",
    b":",
    b"null",
    b"true",
    b'"a": ',
    b"\\u0000",
    b"\\ud800",
    b"#",
    b"\\",
]


@st.composite
def damage(draw) -> list[tuple[int, float, bytes | int]]:
    """One to three changes: kind, place as a share of the file, and what goes there or how much is taken."""
    kind, place = st.integers(0, 7), st.floats(0, 1, exclude_max=True, width=32)
    what = st.one_of(st.sampled_from(STUMBLING), st.binary(min_size=1, max_size=6), st.integers(1, 40))
    return draw(st.lists(st.tuples(kind, place, what), min_size=1, max_size=3))


SCALARS = st.sampled_from(
    [0, 1, 2, 3, -1, 1.5, 10**6, 10**12, None, True, "", "sleeve", "tone", "\ud800", "a\0b"]
)
KEYS = st.sampled_from(["toy", "ATTRIBUTES", "ATTRIBUTES_NUM", "VALUES", "ABOUT", "sleeve", "tone", ""])
NUMBERS = [
    *"0 1 2 3 7 8 -1 0.5 0.9 1.0 2.5 1e-300 1e300 nan inf é , \t".split(" "),
    str(2**63 - 1),
    str(2**63),
]
MADE_UP = {  # files made of what belongs into them, at random
    ".json": st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    ).map(lambda made: json.dumps(made).encode()),
    ".txt": st.lists(st.lists(st.sampled_from(NUMBERS), max_size=8), max_size=5).map(
        lambda lines: "\n".join(map(" ".join, lines)).encode()
    ),
    ".csv": st.lists(
        st.lists(
            st.sampled_from(["a", "b.png", '"', '""', '"x"', "../b", "", "|", "1|2", "train", ";"]),
            max_size=5,
        ),
        max_size=5,
    ).map(lambda lines: "\n".join(map(",".join, lines)).encode()),
    "": st.tuples(st.sampled_from([0, 1, 8]), st.integers(0, 9), st.binary(max_size=9)).map(
        lambda made: bytes([0, 0, 8, 1, made[0], 0, 0, made[1]]) + made[2]
    ),
}
MADE_UP[".gz"] = MADE_UP[""].map(gzip.compress)


def damaged(data: bytes, changes: list[tuple[int, float, bytes | int]]) -> bytes:
    """The file with its changes, one after the other."""
    for kind, place, what in changes:
        at, amount = int(place * (len(data) + 1)), what if isinstance(what, int) else len(what)
        inserted = what if isinstance(what, bytes) else bytes([what])
        lines = data.splitlines(keepends=True)
        line = int(place * len(lines))
        if kind in (0, 1):
            data = data[:at] + inserted + data[at:]
        elif kind == 2:
            data = data[:at] + inserted + data[at + len(inserted) :]
        elif kind == 3:
            data = data[:at] + data[at + amount :]
        elif kind == 4:
            data = data[:at]
        elif kind == 5:
            data = data[:at] + data[max(0, at - amount) : at] * 2 + data[at:]
        elif kind == 6:  # a line as often as it takes, or gone
            lines[line : line + 1] = lines[line : line + 1] * (amount % 4)
            data = b"".join(lines)
        elif data:  # a bit
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << amount % 8]) + data[at + 1 :]
    return data


OPENED: list[str] | None = None


def _hook(event: str, args: tuple) -> None:
    if OPENED is not None and event in (
        "open",
        "os.listdir",
        "os.scandir",
        "os.rename",
        "os.remove",
        "os.mkdir",
    ):
        if isinstance(args[0], (str, bytes, os.PathLike)):
            OPENED.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(root: Path, seconds: float = SECONDS):
    """Everything opened must lie in `root` (or be the meta.json above it), and the time is limited."""
    global OPENED

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    OPENED = opened = []
    try:
        yield opened
    finally:
        OPENED = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    allowed, above = os.path.realpath(root), os.path.realpath(root.parent / "meta.json")
    for path in map(os.path.realpath, opened):
        assert path.startswith(allowed + os.sep) or path == above, path


def check_error(error: DataError, root: Path, path: Path, data: bytes) -> None:
    """It names the file (or one that now does not fit it), a line that there is, and what to do."""
    assert type(error) is DataError and error.problem and error.remedy
    assert error.path.parent == root or error.path == root.parent / "meta.json" or error.path == root
    assert str(error).startswith(str(error.path)) and str(error).encode()
    if error.path == path and error.line is not None:
        text = data.decode("utf-8", "replace").replace("\r\n", "\n")
        assert 1 <= error.line <= 1 + text.count("\n") + text.count("\r")


def attack(root: Path, name: str, reader, files: int, refused_share: float = 0.2) -> None:
    """Feed so many damaged versions of a file to its reader; a fair share must be refused, and some pass."""
    path, counts = root / name, {"refused": 0, "read": 0}
    good = path.read_bytes()
    reader(root)  # the whole file is read

    @settings(
        max_examples=files // A_BATCH,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(damage(), min_size=A_BATCH - 2, max_size=A_BATCH - 2), st.tuples(*2 * [MADE_UP[path.suffix]])
    )
    def feed(batch: list, made_up: tuple[bytes, ...]) -> None:
        for data in [*(damaged(good, changes) for changes in batch), *made_up]:
            path.write_bytes(data)
            with watched(root):
                try:
                    reader(root)
                    counts["read"] += 1
                except DataError as error:
                    counts["refused"] += 1
                    check_error(error, root, path, data)

    try:
        feed()
    finally:
        path.write_bytes(good)
    total = sum(counts.values())
    assert total >= files and counts["refused"] > refused_share * total and counts["read"] > 0, counts
