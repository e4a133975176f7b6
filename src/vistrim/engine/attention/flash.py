"""FlashAttention: kernels that are told how long sequences are, and are given no mask of rows and columns.

transformers gives them a validity mask ``[batch, columns]``, or None where all columns are valid, and they do the rest
themselves: causality by the order of rows, a sliding window by counting columns. In a trimmed layer the first is right,
as order is kept. The second is not, because columns that went are not counted; so wherever a window is shorter than the
sequence and a prefill has been trimmed, SDPA takes the kernel's place, with a mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vistrim.core.scores import Softmax
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.errors import UnsupportedGenerationError


def is_flash(kernel: str | None) -> bool:
    """Whether an attention kernel, given by its name, is a FlashAttention, from whichever package or the Hub."""
    return (
        ALL_ATTENTION_FUNCTIONS.get(kernel) is flash_attention_forward
        and ALL_MASK_ATTENTION_FUNCTIONS.get(kernel) is flash_attention_mask
    )


def sliding_windows(config: Any) -> tuple[int | None, ...]:
    """Tokens that each decoder layer looks back over, itself included; None: all."""
    return tuple(layer.sliding_window if layer.is_sliding else None for layer in DynamicCache(config=config).layers)


def looks_back(attention: Any) -> bool:
    """Whether FlashAttention hides later tokens in a layer. In some families it is told not to."""
    return getattr(attention, "is_causal", True)


def check_readable(decoder: Any) -> None:
    """Refuse to read the attention of an untouched model whose FlashAttention knows more than its masks tell.

    Raises
    ------
    UnsupportedGenerationError
        If it measures windows itself, or looks both ways.
    """
    causal = all(looks_back(layer.self_attn) for layer in decoder.layers)
    if is_flash(decoder.config._attn_implementation) and (any(sliding_windows(decoder.config)) or not causal):
        raise UnsupportedGenerationError(
            "vistrim cannot read the attention of a model (a guide, for example) with FlashAttention and a sliding "
            "window, or images that look both ways: call its set_attn_implementation('sdpa')"
        )


def refuse_packed(mask: Tensor | None, arguments: dict[str, Any]) -> None:
    """Refuse a prefill of several sequences one behind the other, which FlashAttention takes from the positions.

    Parameters
    ----------
    mask : Tensor or None
        The layer's mask.
    arguments : dict
        The layer's keyword arguments.

    Raises
    ------
    UnsupportedGenerationError
        If positions have gaps where there is neither padding nor a second sample.
    """
    own = arguments.get("position_ids")
    gaps = mask is None and own is not None and own.shape[0] == 1 and bool((own.diff() != 1).any())
    if gaps or arguments.get("cu_seq_lens_q") is not None:
        raise UnsupportedGenerationError(
            "vistrim does not support several sequences packed into one, which FlashAttention sees in gaps of "
            "`position_ids` or in `cu_seq_lens_q`: pass a padded batch with an `attention_mask`"
        )


def refuse_packed_images(config: Any, call: dict[str, Any]) -> None:
    """Refuse a call with images and the lengths of packed text: transformers 5.24 hands these to the vision tower, too.

    Parameters
    ----------
    config : PretrainedConfig
        Of the decoder.
    call : dict
        Arguments of the base model.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    if is_flash(config._attn_implementation) and call.get("cu_seq_lens_q") is not None:
        refuse_packed(None, call)


def refuse_packed_pictures(kernel: str, arguments: dict[str, Any]) -> None:
    """Refuse to read the attention of pictures that share a sequence, with borders that only FlashAttention sees.

    Parameters
    ----------
    kernel : str
        The attention kernel's name.
    arguments : dict
        What it was called with beside queries, keys, values and mask.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    borders = any(arguments.get(name) is not None for name in ("position_ids", "cu_seq_lens_q"))
    if borders and is_flash(kernel):
        raise UnsupportedGenerationError(
            "vistrim cannot read the attention of a vision tower that packs its pictures for FlashAttention: "
            "call model.set_attn_implementation({'vision_config': 'sdpa', 'text_config': '...'})"
        )


def flash_mask(keys: TokenMap, queries: TokenMap, window: int | None, causal: bool, maps: bool) -> Tensor | None:
    """Mask of a trimmed prefill.

    Parameters
    ----------
    keys : TokenMap
        The columns; the last of them are the rows.
    queries : TokenMap
        The rows.
    window : int or None
        Slots that the layer looks over, itself included; None: all.
    causal : bool
        Whether the layer looks back only. (Some families tell FlashAttention to look both ways.)
    maps : bool
        Whether it has to be a mask of rows and columns, for whoever does not know causality and windows.

    Returns
    -------
    Tensor or None
        ``[batch, columns]`` bool: the columns that are valid, for FlashAttention. ``[batch, 1, rows, columns]`` bool:
        what each row sees, for others. None where everything is valid; to others it means causal, without a past.
    """
    rows, columns = queries.width, keys.width
    if window is None and not any(keys.n_invalid) and (not maps or (causal and rows == columns)):
        return None
    if window is None and not maps:
        return keys.valid
    seen = keys.valid[:, None]
    if causal:
        seen = seen & torch.ones(rows, columns, dtype=torch.bool, device=seen.device).tril(columns - rows)
    if window is not None:
        seen = seen & ((queries.places[:, :, None] - keys.places[:, None]).abs() < window)
    # The result of invalid rows is never used, but a row without any column would be NaN.
    return (seen | ~queries.valid[:, :, None])[:, None]


def kernel_for(kernel: str, mask: Tensor | None, softmax: Softmax) -> str:
    """The kernel that is called: the model's own, or SDPA in the place of a FlashAttention that cannot take the mask.

    Raises
    ------
    UnsupportedGenerationError
        If SDPA cannot take its place.
    """
    if mask is None or mask.dim() == 2 or not is_flash(kernel):
        return kernel
    if softmax.softcap is not None or softmax.sinks is not None:
        raise UnsupportedGenerationError(
            "the prompt is longer than the model's sliding window, which FlashAttention cannot measure in a trimmed "
            "prompt: call model.set_attn_implementation('eager') (SDPA has no soft cap and no attention sinks)"
        )
    return "sdpa"
