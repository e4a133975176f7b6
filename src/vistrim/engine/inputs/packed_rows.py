"""Several samples packed into one row: detection and refusal."""

from __future__ import annotations

import torch
from torch import Tensor

from vistrim.errors import UnsupportedGenerationError


def positions_restart(positions: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """Whether positions restart within a row, which they never do within one sample.

    Parameters
    ----------
    positions : Tensor or None
        ``[batch or 1, tokens]`` or, with several axes (M-RoPE), ``[axes, batch or 1, tokens]`` long.
    valid : Tensor or None
        ``[batch, past + tokens]`` bool, False for padding. None: there is none.

    Returns
    -------
    Tensor or None
        ``[]`` bool. None: there are no positions.

    Notes
    -----
    The row and column of M-RoPE decrease within every image, but the time does not. So all axes have to decrease.
    """
    if positions is None or positions.dim() not in (2, 3):
        return None
    back = positions.diff(dim=-1) < 0
    if back.dim() == 3:
        back = back.all(0)
    if valid is not None:
        here = valid[:, valid.shape[1] - positions.shape[-1] :].to(back.device)
        back = back & here[:, 1:] & here[:, :-1]
    return back.any()


def mask_separates_rows(mask: Tensor | None) -> bool:
    """Whether a mask hides a token from the next one, as transformers masks do between packed samples.

    Parameters
    ----------
    mask : Tensor or None
        ``[batch or 1, 1, rows, columns]``, bool (True: visible) or additive, without padding. The last columns are the
        rows. Masks of other shapes are ignored.
    """
    if mask is None or mask.dim() != 4:
        return False
    before = mask.diagonal(mask.shape[3] - mask.shape[2] - 1, 2, 3)
    hidden = ~before if before.dtype == torch.bool else before < 0
    return bool(hidden.any())


def refuse_in_packed_rows(method: str) -> None:
    """Refuse a method that treats a row as one sample.

    Raises
    ------
    UnsupportedGenerationError
        Always. The message names the fix.
    """
    raise UnsupportedGenerationError(
        f"{method} treats each row as one sample, but several are packed into one (`position_ids` restart): pass a "
        "padded batch with an `attention_mask`, or use a method that ranks each image by itself before the LLM, such "
        "as vistrim.VisPruner()"
    )
