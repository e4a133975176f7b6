"""What a method chooses among the tokens of an image, and whether it is valid."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageChoice:
    """Selection among the ``n`` tokens of one image.

    Attributes
    ----------
    keep : Tensor
        ``[kept]`` long: distinct indices in ``range(n)`` of the tokens to keep, at least one, in any order.
    merge_into : Tensor, optional
        ``[n]`` long: for a removed token, the index of the kept token that absorbs it, or -1 if it is dropped. -1 for
        all other tokens. None: no token is merged.
    made : Tensor, optional
        ``[last, hidden]``: new embeddings of the last tokens of ``keep``. None: all tokens keep their embeddings.
    behind : Tensor, optional
        ``[n]`` long: for a kept token that moves, the index of the token behind which it goes. -1 for all other tokens.
        None: no token moves.
    """

    keep: Tensor
    merge_into: Tensor | None = None
    made: Tensor | None = None
    behind: Tensor | None = None


def problem_of(choice: Any, n: int, width: int) -> str | None:
    """Find an error in the result of `choose` that shows in types and shapes.

    The contents of tensors are not read, which would synchronize with the device.

    Parameters
    ----------
    choice : object
        Result of `choose`.
    n : int
        Tokens of the image.
    width : int
        Hidden size of the decoder.

    Returns
    -------
    str or None
        Description of the error. None: there is none.
    """
    if not isinstance(choice, ImageChoice):
        return "an ImageChoice is expected"
    keep, made = choice.keep, choice.made
    if not isinstance(keep, Tensor) or keep.dtype != torch.long or keep.dim() != 1:
        return "keep has to be a tensor [kept] of torch.int64"
    if not len(keep):
        return "keep has to have at least one token of the image"
    for name, part in (("merge_into", choice.merge_into), ("behind", choice.behind)):
        if part is not None and (not isinstance(part, Tensor) or part.dtype != torch.long or part.shape != (n,)):
            return f"{name} has to be a tensor [{n}] of torch.int64"
    if made is not None and not (
        isinstance(made, Tensor) and made.is_floating_point() and made.dim() == 2 and made.shape[1] == width
    ):
        return f"made has to be a float tensor [last ones of keep, {width}]"
    if made is not None and not 0 < len(made) <= len(keep):
        return f"made has to have from 1 to {len(keep)} rows, for the last ones of keep"
    return None


@dataclass(frozen=True)
class Spread:
    """A selection by token, with row numbers of the prompt.

    Attributes
    ----------
    stays : Tensor
        ``[n]`` bool, True for kept tokens.
    target : Tensor or None
        ``[n]`` long: row that absorbs the token, or -1.
    behind : Tensor or None
        ``[n]`` long: row behind which the token goes, or -1.
    fits : Tensor
        Scalar bool: whether all indices are valid.
    """

    stays: Tensor
    target: Tensor | None
    behind: Tensor | None
    fits: Tensor


def spread_over(choice: ImageChoice, where: Tensor) -> Spread:
    """Convert a selection to row numbers of the prompt. Invalid indices are clamped and reported.

    Parameters
    ----------
    choice : ImageChoice
        The selection.
    where : Tensor
        ``[n]`` long: row of each token.

    Returns
    -------
    Spread
        The selection by token.
    """
    last = len(where) - 1
    index = choice.keep.to(where.device)
    stays = torch.zeros_like(where, dtype=torch.bool)
    stays[index.clamp(0, last)] = True
    fits = ((index >= 0) & (index <= last)).all() & (stays.sum() == len(index))
    target = behind = None
    if choice.merge_into is not None:
        into = choice.merge_into.to(where.device)
        absorbed = (into >= 0) & (into <= last) & stays[into.clamp(0, last)] & ~stays
        target, fits = _rows(into, where), fits & ((into == -1) | absorbed).all()
    if choice.behind is not None:
        after = choice.behind.to(where.device)
        behind, fits = _rows(after, where), fits & ((after == -1) | ((after >= 0) & (after <= last) & stays)).all()
    return Spread(stays, target, behind, fits)


def _rows(index: Tensor, where: Tensor) -> Tensor:
    return torch.where(index >= 0, where[index.clamp(0, len(where) - 1)], -1)
