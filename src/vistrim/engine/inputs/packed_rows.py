"""Several samples in one row: how they are noticed, and what is refused."""

from __future__ import annotations

import torch
from torch import Tensor

from vistrim.errors import UnsupportedGenerationError


def positions_restart(positions: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """Whether positions begin again inside a row, as they never do in one sequence.

    Parameters
    ----------
    positions : Tensor or None
        ``[batch or 1, tokens]`` or, with several axes (M-RoPE), ``[axes, batch or 1, tokens]`` long.
    valid : Tensor or None
        ``[batch, past + tokens]`` bool: False for padding; None: there is none.

    Returns
    -------
    Tensor or None
        ``[]`` bool. None where there are no positions to tell.

    Notes
    -----
    Rows and columns of M-RoPE go back inside every image, but then its time does not; so all axes have to go back.
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
    """Whether a mask without padding hides a token from the next one, as transformers does between packed samples.

    Parameters
    ----------
    mask : Tensor or None
        ``[batch or 1, 1, rows, columns]``, bool (True: visible) or additive; the last columns are the rows. A mask of
        other dimensions tells nothing.
    """
    if mask is None or mask.dim() != 4:
        return False
    before = mask.diagonal(mask.shape[3] - mask.shape[2] - 1, 2, 3)
    hidden = ~before if before.dtype == torch.bool else before < 0
    return bool(hidden.any())


def refuse_in_packed_rows(method: str) -> None:
    """Refuse a method that takes a row for one sample.

    Raises
    ------
    UnsupportedGenerationError
        With the way out.
    """
    raise UnsupportedGenerationError(
        f"{method} takes each row for one sample, but several are packed into one (`position_ids` begin again): pass a "
        "padded batch with an `attention_mask`, or use a method that goes by single images before the LLM, such as "
        "vistrim.VisPruner()"
    )
