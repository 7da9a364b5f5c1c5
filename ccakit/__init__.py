"""ccakit: conditional cross attention for attribute-specific retrieval, open and executable."""

import os

# Waiting OpenMP threads soon go to sleep instead of spinning. Measured for a training step of the demo on 2 threads:
# 0.05 s either way on a quiet machine; beside another program with 2 threads 0.10 s so, and 0.67 s with spinning.
# It counts only if it is set before torch is first imported; the Makefile sets it for notebooks and tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
