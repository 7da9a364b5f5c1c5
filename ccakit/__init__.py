"""ccakit: conditional cross attention for attribute-specific retrieval, open and executable."""

import os

# Waiting OpenMP threads sleep instead of spinning: where other work shares the 2 cores, a training step of the demo
# was measured at 0.05-0.08 s so, and at 0.15-1.1 s with spinning. It counts only if it is set before torch is first
# imported; the Makefile sets it for notebooks and tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"
