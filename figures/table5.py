"""Table 5: triplet prediction on Zappos50K as printed; and our triplet accuracies, in their own block."""

from __future__ import annotations

import shared
import sheets

from ccakit.audit.paper import audit_paper
from ccakit.audit.tables import paper_rows

RESULTS = "garments"


def make(results=None, audit: dict | None = None) -> sheets.Sheet:
    """Make the table: the printed accuracies, what can be checked, and those of a results file."""
    rows = paper_rows("Zappos50K")
    best = max(row["accuracy"] for row in rows.values())
    lines = [
        [
            sheets.method(name, row),
            sheets.bold(row["accuracy"], best),
            "50.00" if name == "Random baseline" else "not checkable",
        ]
        for name, row in rows.items()
    ]
    wrong = sheets.contradicted("Zappos50K", "Table 5", audit or audit_paper())
    notes = [
        "Random: which of two images is nearer is a coin's toss, so 50.00 is exact. The others depend on the "
        "images' embeddings; no counts can check them.",
        *wrong,
    ]
    block = sheets.Block("The paper's figures", ["method", "accuracy\n(printed)", "recomputed"], lines, notes)
    file = results or shared.ROOT / f"results/{RESULTS}.csv"
    return sheets.Sheet("Table 5. Triplet prediction accuracy (%) on Zappos50K", [block, _ours(file)])


def _ours(file) -> sheets.Block:
    title = "Our benchmark (not Zappos50K)"
    rows = [row for row in sheets.results(file) if row.get("triplet_accuracy") is not None]
    if not rows:
        return sheets.Block(
            title, [], [], [f"No triplet accuracy has been measured yet ({sheets.named(file)})."]
        )
    lines = [[row["model"], row["mode"], f"{row['seed']}", f"{row['triplet_accuracy']:.2f}"] for row in rows]
    title = f"Our benchmark on {sheets.about(rows[0]['dataset'])} (not Zappos50K)"
    return sheets.Block(title, ["system", "mode", "seed", "triplet accuracy"], lines)


def main(argv=None):
    given = shared.arguments(__doc__, argv, sheets.RESULTS)
    return sheets.write_sheet(make(given.results), "table5", given.out)


if __name__ == "__main__":
    main()
