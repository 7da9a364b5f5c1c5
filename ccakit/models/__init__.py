"""Every compared system behind one interface."""

from ccakit.models.registry import ConditionalModel, ModelInfo, TrunkError, create_model, list_models

__all__ = ["ConditionalModel", "ModelInfo", "TrunkError", "create_model", "list_models"]
