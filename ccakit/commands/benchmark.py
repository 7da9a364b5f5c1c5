"""`ccakit benchmark`: systems under one protocol."""

from __future__ import annotations

import sys

from ccakit.benchmark.config import BenchmarkConfig as Config


def run(config: Config) -> dict:
    from ccakit.audit.tables import other_lists
    from ccakit.benchmark.beside_paper import beside_paper
    from ccakit.benchmark.runs import benchmark
    from ccakit.benchmark.standings import report
    from ccakit.data.layout import read_dataset

    rows = benchmark(config)
    print(report(rows, color=sys.stdout.isatty()))
    paper = beside_paper(rows)
    lists = other_lists(read_dataset(config.data)) if paper else ""
    if lists:
        print(f"note: {lists}")
    results = str(config.results_file(rows[0]["dataset"]))
    return {"results": results, "rows": rows, "beside_paper": paper, "other_lists": lists}
