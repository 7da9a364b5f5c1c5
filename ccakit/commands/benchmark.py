"""`ccakit benchmark`: systems under one protocol."""

from __future__ import annotations

import sys

from ccakit.benchmark.config import BenchmarkConfig as Config


def run(config: Config) -> dict:
    from ccakit.benchmark.runs import benchmark
    from ccakit.benchmark.standings import report

    rows = benchmark(config)
    print(report(rows, color=sys.stdout.isatty()))
    return {"results": str(config.results_file(rows[0]["dataset"])), "rows": rows}
