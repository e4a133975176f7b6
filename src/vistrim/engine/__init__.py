"""The only package that uses internals of transformers: hooks, attention, masks, cache layers and reports."""

from typing import Any

from vistrim.architectures import ModelSpec, discover

__all__ = ["ModelSpec", "describe"]


def describe(model: Any) -> ModelSpec:
    """Find the parts of a model and the layout of its images.

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
        If tokens cannot be removed inside the model. The message names the reason and the fix.
    """
    return discover(model)
