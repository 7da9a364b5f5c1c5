"""ccakit: conditional cross attention for attribute-specific retrieval, open and executable."""

__version__ = "0.1.0"
