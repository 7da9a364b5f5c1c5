"""`python -m ccakit` is `ccakit`."""

from ccakit.cli import entry

entry()
