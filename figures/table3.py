"""Table 3: mAP on DARN as printed, checked by the split files' counts; and our benchmark, in blocks of its own.

See `sheets.map_table`: nothing here was trained on DARN.
"""

from __future__ import annotations

import shared
import sheets

DATASET, RESULTS = "DARN", "fashion_mnist"


def make(results=None) -> sheets.Sheet:
    """The table, with the rows of a results file (of ours by default, if it is there)."""
    return sheets.map_table(DATASET, results or shared.ROOT / f"results/{RESULTS}.csv")


def main(argv=None):
    given = shared.arguments(__doc__, argv, sheets.RESULTS)
    return sheets.write_sheet(make(given.results), "table3", given.out)


if __name__ == "__main__":
    main()
