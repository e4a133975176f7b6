"""Ends of the prompts in a forward pass, as specified by the call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Border:
    """Information in a call on the ends of its prompts.

    Attributes
    ----------
    labels : Tensor or None
        ``[batch, tokens]`` long, -100 for tokens without a label.
    drafted : int
        Number of draft tokens of the answer after the prompt.
    kept : int or Tensor
        The model's ``logits_to_keep``: a number of tokens at the end (0: all), or places ``[n]`` long. The first of
        them is the last prompt token, because its logits predict the first answer token.
    first : Tensor or None
        ``[batch]`` or ``[1]`` long: places of the first answer tokens, if given by the caller.
    prompts_only : bool
        Whether there are no answers, as in ``generate``.
    """

    labels: Tensor | None = None
    drafted: int = 0
    kept: int | Tensor = 0
    first: Tensor | None = None
    prompts_only: bool = False

    @staticmethod
    def of(call: Mapping[str, Any], first: Tensor | None) -> Border:
        """Create it for a bare forward pass from the model's arguments and those of `vistrim.Trim.answer_from`."""
        kept = call.get("logits_to_keep")
        kept = 0 if kept is None else kept
        return Border(labels=call.get("labels"), kept=kept, first=first, prompts_only=_is_one(kept))

    @staticmethod
    def in_generate(call: Mapping[str, Any], drafts: bool) -> Border:
        """Create it for a forward pass of ``generate``, which requests logits of the drafts and the token before."""
        drafted = (call.get("logits_to_keep") or 1) - 1 if drafts else 0
        return Border(labels=call.get("labels"), drafted=drafted, prompts_only=True)

    def first_kept(self, length: int) -> Tensor | int | None:
        """Return the first place with logits in a pass of ``length`` tokens. None: it is not informative."""
        if isinstance(self.kept, Tensor):
            return (self.kept % length).amin() if self.kept.numel() else None
        return length - self.kept if 1 < self.kept <= length else None


@dataclass(frozen=True)
class Ends:
    """The ends of the prompts of a batch.

    Attributes
    ----------
    places : Tensor
        ``[batch]`` long: index of the last token of each prompt in this forward pass.
    told : Tensor
        ``[batch]`` bool: whether the call specifies it. Otherwise it is the last token.
    in_doubt : Tensor
        ``[]`` bool: whether one end was given for all, although the prompts may have different lengths.
    """

    places: Tensor
    told: Tensor
    in_doubt: Tensor


def find_ends(border: Border, valid: Tensor, visual: Tensor, ids: Tensor | None) -> Ends:
    """Find the ends of the prompts.

    Parameters
    ----------
    border : Border
        Information in the call. The caller's places take precedence over labels, and labels over ``logits_to_keep``.
    valid, visual : Tensor
        ``[batch, tokens]`` bool, True for tokens that are not padding, and for visual tokens.
    ids : Tensor or None
        ``[batch, tokens]`` long: the token ids, if they are given.

    Raises
    ------
    ValueError
        If the caller gave places for a different number of samples.
    """
    batch, length = valid.shape
    place = torch.arange(length, device=valid.device)
    last_visual = (place * visual).argmax(1)
    found = (place * valid).argmax(1) - border.drafted
    told = torch.full_like(found, border.prompts_only, dtype=torch.bool)
    in_doubt = told.new_zeros(())
    if (kept := border.first_kept(length)) is not None:
        kept = torch.as_tensor(kept, device=valid.device)
        fits = (kept >= last_visual) & valid.index_select(1, kept.view(1))[:, 0]
        found, told = torch.where(fits, kept, found), told | fits
        in_doubt = _several_lengths(kept, valid, ids)
    if border.labels is not None:
        answer = border.labels.to(valid.device) != -100
        # The token before the first label after the image.
        behind = answer & (place > last_visual[:, None])
        labeled = behind.any(1)
        found = torch.where(labeled, behind.to(torch.uint8).argmax(1) - 1, found)
        told, in_doubt = told | labeled, in_doubt & ~labeled.all()
    if border.first is not None:
        if border.first.numel() not in (1, batch):
            raise ValueError(
                f"answer_from names {border.first.numel()} places, but the forward pass has {batch} samples: give one "
                "for each of them, or one for all"
            )
        found = border.first.to(valid.device).expand(batch) - 1
        told, in_doubt = torch.ones_like(told), torch.zeros_like(in_doubt)
    return Ends(found, told, in_doubt)


def check_ends(first: Tensor | None, places: list[int], behind_visual: list[int], length: int) -> None:
    """Refuse places from `vistrim.Trim.answer_from` at which no answer can begin.

    Parameters
    ----------
    first : Tensor or None
        Places given by the caller. None: nothing to check.
    places : list of int
        Index of the last prompt token of each sample.
    behind_visual : list of int
        Index after the last visual token of each sample.
    length : int
        Number of tokens of the forward pass.

    Raises
    ------
    ValueError
        If a place is wrong. The message names the sample.
    """
    for sample, (place, visual_end) in enumerate(zip(places, behind_visual, strict=True)):
        first_fit = max(1, visual_end)
        if first is not None and not first_fit <= place + 1 < length:
            raise ValueError(
                f"answer_from: the answer of sample {sample} begins at token {place + 1}, but it has to be one of "
                f"{first_fit} to {length - 1}, after the visual tokens: count from the row's start, including padding"
            )


def _several_lengths(kept: Tensor, valid: Tensor, ids: Tensor | None) -> Tensor:
    """Whether samples with different prompts begin at the first token and end at different ones."""
    may = valid[:, 0].all() & ~valid[:, -1].all()
    if ids is None or len(ids) < 2:
        return may & (len(valid) > 1)
    same = (ids == ids[:1]) | (torch.arange(ids.shape[1], device=ids.device) > kept.to(ids.device))
    return may & ~same.all().to(may.device)


def _is_one(kept: int | Tensor) -> bool:
    return not isinstance(kept, Tensor) and kept == 1
