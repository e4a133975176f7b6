"""FlashAttention: kernels that take sequence lengths instead of a mask of rows and columns.

transformers passes them a padding mask ``[batch, columns]``, or None if all columns are valid. The kernels handle
causality by the order of rows, and sliding windows by counting columns. In a trimmed layer, causality is still correct,
because the order is kept. Sliding windows are not, because removed columns are not counted. If the window is shorter
than the sequence and the prefill was trimmed, SDPA with a mask is used instead.
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
    """Whether an attention kernel, given by its name, is FlashAttention from any package or from the Hub."""
    return (
        ALL_ATTENTION_FUNCTIONS.get(kernel) is flash_attention_forward
        and ALL_MASK_ATTENTION_FUNCTIONS.get(kernel) is flash_attention_mask
    )


def sliding_windows(config: Any) -> tuple[int | None, ...]:
    """Return the sliding window of each decoder layer, in tokens including the current one; None: full attention."""
    return tuple(layer.sliding_window if layer.is_sliding else None for layer in DynamicCache(config=config).layers)


def looks_back(attention: Any) -> bool:
    """Whether FlashAttention is causal in a layer. In some model families it is not."""
    return getattr(attention, "is_causal", True)


def check_readable(decoder: Any) -> None:
    """Refuse a model, such as a guide, whose FlashAttention is not determined by its masks.

    Raises
    ------
    UnsupportedGenerationError
        If the kernel applies sliding windows or is bidirectional.
    """
    causal = all(looks_back(layer.self_attn) for layer in decoder.layers)
    if is_flash(decoder.config._attn_implementation) and (any(sliding_windows(decoder.config)) or not causal):
        raise UnsupportedGenerationError(
            "vistrim cannot read the attention of a model (a guide, for example) with FlashAttention and a sliding "
            "window or bidirectional image attention: call its set_attn_implementation('sdpa')"
        )


def refuse_packed(mask: Tensor | None, arguments: dict[str, Any]) -> None:
    """Refuse a prefill of packed sequences, whose borders FlashAttention derives from the positions.

    Parameters
    ----------
    mask : Tensor or None
        Mask of the layer.
    arguments : dict
        Keyword arguments of the layer.

    Raises
    ------
    UnsupportedGenerationError
        If positions have gaps without padding in a batch of one, or if sequence lengths are given.
    """
    own = arguments.get("position_ids")
    gaps = mask is None and own is not None and own.shape[0] == 1 and bool((own.diff() != 1).any())
    if gaps or arguments.get("cu_seq_lens_q") is not None:
        raise UnsupportedGenerationError(
            "vistrim does not support several sequences packed into one, which FlashAttention detects by gaps in "
            "`position_ids` or by `cu_seq_lens_q`: pass a padded batch with an `attention_mask`"
        )


def refuse_packed_images(config: Any, call: dict[str, Any]) -> None:
    """Refuse a call with images and packed text: transformers 5.24 passes the text lengths to the vision tower, too.

    Parameters
    ----------
    config : PretrainedConfig
        Config of the decoder.
    call : dict
        Arguments of the base model.

    Raises
    ------
    UnsupportedGenerationError
        If lengths of packed sequences are given with FlashAttention.
    """
    if is_flash(config._attn_implementation) and call.get("cu_seq_lens_q") is not None:
        refuse_packed(None, call)


def refuse_packed_pictures(kernel: str, arguments: dict[str, Any]) -> None:
    """Refuse to read the attention of images packed into one sequence, whose borders only FlashAttention knows.

    Parameters
    ----------
    kernel : str
        Name of the attention kernel.
    arguments : dict
        Its arguments besides queries, keys, values and mask.

    Raises
    ------
    UnsupportedGenerationError
        If images are packed with FlashAttention.
    """
    borders = any(arguments.get(name) is not None for name in ("position_ids", "cu_seq_lens_q"))
    if borders and is_flash(kernel):
        raise UnsupportedGenerationError(
            "vistrim cannot read the attention of a vision tower that packs images for FlashAttention: "
            "call model.set_attn_implementation({'vision_config': 'sdpa', 'text_config': '...'})"
        )


def flash_mask(keys: TokenMap, queries: TokenMap, window: int | None, causal: bool, maps: bool) -> Tensor | None:
    """Build the mask of a trimmed prefill.

    Parameters
    ----------
    keys : TokenMap
        The columns. The last of them are the rows.
    queries : TokenMap
        The rows.
    window : int or None
        Sliding window of the layer in slots, including the current one. None: full attention.
    causal : bool
        Whether the layer is causal. In some model families, FlashAttention is bidirectional.
    maps : bool
        Whether a mask of rows and columns is needed, for kernels that do not handle causality and windows.

    Returns
    -------
    Tensor or None
        For FlashAttention, the valid columns, ``[batch, columns]`` bool. For other kernels, the visible columns of each
        row, ``[batch, 1, rows, columns]`` bool. None: all columns are valid, and for other kernels, attention is causal
        without a past.
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
    # The output of invalid rows is never used, but a row without any visible column would be NaN.
    return (seen | ~queries.valid[:, :, None])[:, None]


def kernel_for(kernel: str, mask: Tensor | None, softmax: Softmax) -> str:
    """Return the kernel to call: that of the model, or SDPA instead of FlashAttention if it cannot take the mask.

    Raises
    ------
    UnsupportedGenerationError
        If SDPA cannot replace it.
    """
    if mask is None or mask.dim() == 2 or not is_flash(kernel):
        return kernel
    if softmax.softcap is not None or softmax.sinks is not None:
        raise UnsupportedGenerationError(
            "the prompt is longer than the model's sliding window, which FlashAttention cannot apply to a trimmed "
            "prompt: call model.set_attn_implementation('eager') (SDPA has no soft cap and no attention sinks)"
        )
    return "sdpa"
