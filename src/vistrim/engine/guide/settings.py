"""Inputs and settings that the guide model takes from a call of ``generate`` of the large model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from vistrim.architectures import ModelSpec
from vistrim.engine.generation import GenerateCall

OBEYED = (
    "min_length",
    "min_new_tokens",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "remove_invalid_values",
)
"""Settings of ``generate``, other than the length and the end of the answer, that affect greedy decoding."""
GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "use_cache": True,
    "cache_implementation": "dynamic",
    "prompt_lookup_num_tokens": None,
    "return_dict_in_generate": True,
}


def inputs_of(call: GenerateCall, spec: ModelSpec) -> dict[str, Tensor]:
    """Collect the prompts and images of a call, on the device and in the dtype of a model."""
    # Model families have different tensors besides the ids: masks, pixels, sizes, grids, token types.
    given = {name: value for name, value in call.arguments.items() if isinstance(value, Tensor) and name != "inputs"}
    assert call.input_ids is not None
    given["input_ids"] = call.input_ids
    return {
        name: value.to(spec.device, spec.dtype if value.is_floating_point() else value.dtype)
        for name, value in given.items()
    }


def greedy_settings(call: GenerateCall, own: GenerationConfig) -> dict[str, Any]:
    """Build the settings of the guide model for greedy decoding in accordance with the call.

    Parameters
    ----------
    call : GenerateCall
        Call of the large model's ``generate``. It sets the length of answers, and with ``eos_token_id`` their end.
    own : GenerationConfig
        Generation config of the guide model. Its end-of-sequence tokens also apply if the call sets none.
    """
    setting = call.setting
    given = call.arguments.get("generation_config")
    ends = _ids(call.arguments.get("eos_token_id", getattr(given, "eos_token_id", None)))
    if "eos_token_id" not in call.arguments and not ends:
        ends = [*dict.fromkeys(_ids(setting("eos_token_id")) + _ids(own.eos_token_id))]
    pads = (setting("pad_token_id"), own.pad_token_id, *ends, 0)
    return {
        **{name: setting(name) for name in OBEYED if setting(name) is not None},
        **GREEDY,
        "max_new_tokens": call.most_new_tokens,
        "eos_token_id": ends or None,
        "pad_token_id": next(int(token) for token in pads if token is not None),
    }


def _ids(tokens: Any) -> list[int]:
    """Convert one token id, several or None to a list."""
    return [] if tokens is None else torch.as_tensor(tokens).reshape(-1).tolist()
