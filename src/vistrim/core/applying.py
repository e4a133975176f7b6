"""Changes of hidden states that a selection asks for: merging, replacement and moves."""

import torch
from torch import Tensor

from vistrim.core.selection import Selection, gather_rows, kept_rows


def merged_hidden(hidden: Tensor, merge_into: Tensor) -> Tensor:
    """Replace rows that absorb others by the mean over all of them, including the row itself.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, tokens, hidden]``.
    merge_into : Tensor
        ``[batch, tokens]`` long: row that absorbs each token, or -1.

    Returns
    -------
    Tensor
        ``[batch, tokens, hidden]``. Rows that absorb nothing are unchanged.
    """
    batch, tokens, width = hidden.shape
    merge_into = merge_into.to(hidden.device)
    own = torch.arange(tokens, device=hidden.device).expand(batch, -1)
    target = torch.where(merge_into >= 0, merge_into, own)
    total = torch.zeros(batch, tokens, width, dtype=torch.float32, device=hidden.device)
    total = total.scatter_add(1, target[..., None].expand_as(hidden), hidden.float())
    members = torch.zeros(batch, tokens, device=hidden.device).scatter_add(1, target, torch.ones_like(own).float())
    mean = (total / members.clamp(min=1)[..., None]).to(hidden.dtype)
    # Rows that absorb nothing stay bit-identical.
    return torch.where((members > 1)[..., None], mean, hidden)


def replace_hidden(hidden: Tensor, keep: Tensor, replacement: Tensor) -> Tensor:
    """Replace the hidden states of some tokens.

    Parameters
    ----------
    hidden, replacement : Tensor
        ``[batch, tokens, hidden]``.
    keep : Tensor
        ``[batch, tokens]`` bool, True for the tokens to replace.

    Returns
    -------
    Tensor
        ``[batch, tokens, hidden]``.
    """
    return torch.where(keep.to(hidden.device)[..., None], replacement.to(hidden), hidden)


def order_after_moves(behind: Tensor) -> Tensor:
    """Compute the order of rows of which some move.

    Parameters
    ----------
    behind : Tensor
        ``[batch, rows]`` long: row behind which a row goes, or -1 if it does not move.

    Returns
    -------
    Tensor
        ``[batch, rows]`` long: the rows in their new order.
    """
    width = behind.shape[1]
    rows = torch.arange(width, device=behind.device)
    # Keep room for all moved rows between two rows.
    step = width + 1
    return torch.where(behind >= 0, behind * step + 1 + rows, rows * step).argsort(1)


def apply_to_visual(hidden: Tensor, selection: Selection) -> Tensor:
    """Carry out a selection among visual tokens that no text stands between.

    Parameters
    ----------
    hidden : Tensor
        ``[batch, tokens, hidden]``: visual tokens only.
    selection : Selection
        The selection. It keeps the same number of tokens in all samples.

    Returns
    -------
    Tensor
        ``[batch, kept, hidden]``: the remaining tokens in their new order.
    """
    if selection.hidden is not None:
        hidden = replace_hidden(hidden, selection.changed, selection.hidden)
    if selection.merge_into is not None:
        hidden = merged_hidden(hidden, selection.merge_into)
    keep = selection.keep
    if selection.behind is None:
        index, _ = kept_rows(keep, selection.counts)
    else:
        order = order_after_moves(selection.behind)
        index, _ = kept_rows(keep.gather(1, order), selection.counts)
        index = order.gather(1, index)
    return gather_rows(hidden, index, 0, 1)
