"""The only code that knows transformers' internals: hooks, attention, masks, compaction, cache layers, report."""

from typing import Any

from vistrim.architectures import ModelSpec, discover

__all__ = ["ModelSpec", "describe"]


def describe(model: Any) -> ModelSpec:
    """Tell where a model keeps its parts and what becomes of its images, or refuse it.

    Parameters
    ----------
    model : PreTrainedModel
        A multimodal model for generation.

    Returns
    -------
    ModelSpec

    Raises
    ------
    UnsupportedModelError
        If tokens cannot be removed inside the model; the message gives the reason and the way out.
    """
    return discover(model)
