"""A trained model for others: pictures and attribute names in, embeddings out."""

from ccakit.hub.pretrained import PretrainedModel

__all__ = ["PretrainedModel"]
