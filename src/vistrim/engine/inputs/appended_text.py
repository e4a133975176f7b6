"""Text after the prompts of a batch: all per-token tensors are extended, as in ``generate``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput


def with_text_behind(model: Any, inputs: Mapping[str, Any], ids: Tensor, valid: Tensor) -> dict[str, Any]:
    """Append text to prompts.

    As in ``generate``, the model itself extends its token types. Other per-token tensors repeat the value of the last
    token, which is text, too.

    Parameters
    ----------
    model : PreTrainedModel
        The multimodal model.
    inputs : mapping
        Output of the processor for prompts padded on the left.
    ids : Tensor
        ``[batch, new tokens]`` long: the text.
    valid : Tensor
        ``[batch, new tokens]`` bool, False for padding.

    Returns
    -------
    dict of str to Any
        The inputs for ``[batch, tokens + new tokens]``.
    """
    shape, new = inputs["input_ids"].shape, ids.shape[1]
    found = dict(inputs)
    for _ in range(new):
        found = model._update_model_kwargs_for_generation(ModelOutput(), found)
    for name, tensor in inputs.items():
        if isinstance(tensor, Tensor) and tensor.shape == shape and found[name].shape == shape:
            found[name] = torch.cat([tensor, tensor[:, -1:].expand(-1, new)], 1)
    found["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
    found["attention_mask"] = torch.cat([inputs["attention_mask"], valid.to(inputs["attention_mask"].dtype)], 1)
    return found
