"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DATA_PREP, FIXTURES = ROOT / "data_prep", ROOT / "tests/fixtures"
