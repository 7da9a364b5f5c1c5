"""The version, alone: rooms below the face write it into files."""

__version__ = "0.2.0"
