"""`python -m ccakit` is `ccakit`."""

from ccakit.cli import entry

if __name__ == "__main__":
    entry()
