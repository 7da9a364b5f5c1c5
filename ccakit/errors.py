"""The one error for bad data: it names file, line and remedy. Errors of others are written in one line."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """Data that cannot be used: `path`, `line` (1-based, or None), `problem`, `remedy`.

    >>> print(DataError("query_test.txt", "label 9 is out of range", "Use 0 to 5.", line=3))
    query_test.txt, line 3: label 9 is out of range. Use 0 to 5.

    It can be pickled. A DataLoader passes a worker's error on as text, so `DataError(text)` prints that text.
    """

    def __init__(
        self, path: str | Path, problem: str = "", remedy: str = "", line: int | None = None
    ) -> None:
        super().__init__(path, problem, remedy, line)
        self.path, self.problem, self.remedy = Path(path), problem.rstrip("."), remedy
        self.line = None if line is None else int(line)

    def __str__(self) -> str:
        if not self.problem:
            return str(self.args[0])
        place = f"{self.args[0]}" if self.line is None else f"{self.args[0]}, line {self.line}"
        return f"{place}: {self.problem}. {self.remedy}".rstrip()


def in_words(error: Exception) -> str:
    """Give an exception's message; with a remedy, where this machine cannot name a file.

    >>> print(in_words(UnicodeEncodeError("gbk", "größe.png", 2, 3, "illegal")))
    'größe.png' has letters that file names have not here (gbk). Set PYTHONUTF8=1, or rename it.
    """
    if isinstance(error, UnicodeEncodeError):
        problem = f"{error.object!r} has letters that file names have not here ({error.encoding})"
        return f"{problem}. Set PYTHONUTF8=1, or rename it."
    return str(error)


def first_line(error: Exception) -> str:
    """Give the first line of an exception's message, or its type's name if it has none.

    >>> first_line(ValueError("no such file\\nsee the manual")), first_line(KeyboardInterrupt())
    ('no such file', 'KeyboardInterrupt')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
