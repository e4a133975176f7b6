"""Visual tokens that each layer held, and their locations in the images. Plain data without tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vistrim.engine.report.token_groups import Place, TokenGroup

Tokens = tuple[int, ...]
"""Indices of visual tokens of a sample, in prompt order from 0."""


@dataclass(frozen=True)
class PrefillStage:
    """Visual tokens that the layers from this stage up to the next one processed in prefill.

    Attributes
    ----------
    layer : int
        First decoder layer of the stage.
    kept : tuple of int
        The tokens.
    stands_for : tuple of (int, tuple of int or None)
        Kept tokens that represent several tokens, each with the tokens (including itself) whose hidden states were
        averaged. None: the method computed a new hidden state (`vistrim.QueCC`), which represents no particular tokens.
    """

    layer: int
    kept: Tokens
    stands_for: tuple[tuple[int, Tokens | None], ...] = ()


@dataclass(frozen=True)
class CacheChange:
    """Change of the visual tokens in the cache of a layer.

    Attributes
    ----------
    step : int
        The decoding step; 0: the end of the prefill.
    gone : tuple of int
        Tokens that the cache no longer holds.
    back : tuple of int
        Additional tokens: those of earlier turns (at step 0), or of another beam that replaced this row.
    """

    step: int
    gone: Tokens
    back: Tokens = ()


@dataclass(frozen=True)
class SampleTrace:
    """Trace of one row of the batch. Copies of a sample for beams or several answers have their own traces.

    Attributes
    ----------
    visual_tokens : int
        Number of visual tokens of this prompt. A token that cannot be removed, such as the last of a prompt, counts as
        text.
    earlier : int
        Number of visual tokens of earlier turns that the cache still held. They come first, so this is the index of the
        prompt's first token. The trace of their own turn has their locations.
    groups : tuple of TokenGroup
        Locations of the prompt's tokens. Each token is in one group.
    prefill : tuple of PrefillStage
        Tokens that the layers processed. The first stage begins at layer 0.
    decode : tuple of tuple of CacheChange
        Later changes of the cache of each layer.
    """

    visual_tokens: int
    earlier: int
    groups: tuple[TokenGroup, ...]
    prefill: tuple[PrefillStage, ...]
    decode: tuple[tuple[CacheChange, ...], ...]

    @staticmethod
    def unseen(visual_tokens: int, layers: int, reason: str) -> SampleTrace:
        """Create the trace of a sample that the model did not process.

        Parameters
        ----------
        visual_tokens : int
            Number of visual tokens of the prompt.
        layers : int
            Number of decoder layers.
        reason : str
            Reason why the tokens have no locations.

        Returns
        -------
        SampleTrace
            A trace without processed tokens.
        """
        group = TokenGroup("image", 0, "whole", 0, None, tuple(range(visual_tokens)), (), reason)
        groups = (group,) if visual_tokens else ()
        return SampleTrace(visual_tokens, 0, groups, (PrefillStage(0, ()),), ((),) * layers)

    def stage(self, layer: int) -> PrefillStage:
        """Return the stage of the prefill that a layer belongs to.

        Parameters
        ----------
        layer : int
            Decoder layer.

        Returns
        -------
        PrefillStage
            The stage.
        """
        return [stage for stage in self.prefill if stage.layer <= layer][-1]

    @property
    def trims_prefill(self) -> bool:
        """Whether a layer processed fewer tokens than the prompt has."""
        return len(self.prefill[-1].kept) < self.visual_tokens


@dataclass(frozen=True)
class Trace:
    """Visual tokens that each decoder layer processed in prefill and held in decode.

    Tokens are numbered per sample in prompt order, from 0 (see `SampleTrace.earlier`).

    The trace includes evictions by sliding windows. Without a KV cache, each step repeats the prefill and its
    selection. Cuts inside the layers (`vistrim.YOPO`) remove no tokens.

    Attributes
    ----------
    layers : int
        Number of decoder layers.
    steps : int
        Number of decoding steps, the forward passes after the prefill. The last token of an answer needs none.
    samples : tuple of SampleTrace
        Traces of the rows of the batch.
    """

    layers: int
    steps: int
    samples: tuple[SampleTrace, ...]

    def processed(self, sample: int, layer: int) -> Tokens:
        """Return the visual tokens of the prompt that a layer processed in prefill.

        Parameters
        ----------
        sample : int
            Row of the batch.
        layer : int
            Decoder layer.

        Returns
        -------
        tuple of int
            The tokens, in order.

        Raises
        ------
        IndexError
            If there is no such sample or layer.
        """
        return self._sample(sample, layer).stage(layer).kept

    def kept(self, sample: int, layer: int, step: int = 0) -> Tokens:
        """Return the visual tokens that the cache of a layer held after a step.

        Parameters
        ----------
        sample : int
            Row of the batch.
        layer : int
            Decoder layer.
        step : int
            Decoding step. 0: the prefill.

        Returns
        -------
        tuple of int
            The tokens, in order.

        Raises
        ------
        IndexError
            If there is no such sample, layer or step.
        """
        of = self._sample(sample, layer)
        if not 0 <= step <= self.steps:
            raise IndexError(f"step={step}: this trace has steps 0 (the prefill) to {self.steps}")
        held = set(of.stage(layer).kept)
        for change in of.decode[layer]:
            if change.step > step:
                break
            held.difference_update(change.gone)
            held.update(change.back)
        return tuple(sorted(held))

    def stands_for(self, sample: int, layer: int) -> dict[int, Tokens | None]:
        """Return the tokens of a layer that represent several tokens; see `PrefillStage.stands_for`.

        Parameters
        ----------
        sample : int
            Row of the batch.
        layer : int
            Decoder layer.

        Returns
        -------
        dict
            For each of these tokens, the tokens that it represents, or None.

        Raises
        ------
        IndexError
            If there is no such sample or layer.
        """
        return dict(self._sample(sample, layer).stage(layer).stands_for)

    def place(self, sample: int, token: int) -> Place:
        """Return the location of a token.

        Parameters
        ----------
        sample : int
            Row of the batch.
        token : int
            Index of a visual token of the sample.

        Returns
        -------
        Place
            The location.

        Raises
        ------
        IndexError
            If the sample has no such token.
        """
        of = self._sample(sample, 0)
        for group in of.groups:
            if token in group.tokens:
                common = (group.modality, group.image, group.part, group.number)
                if group.grid is None:
                    return Place(*common, None, None, group.reason)
                return Place(*common, *divmod(group.cells[group.tokens.index(token)], group.grid[1]), "")
        if 0 <= token < of.earlier:
            return Place("image", 0, "whole", 0, None, None, "a token of an earlier turn: see the trace of that turn")
        raise IndexError(f"token={token}: sample {sample} has {of.earlier + of.visual_tokens} visual tokens")

    def _sample(self, sample: int, layer: int) -> SampleTrace:
        if not 0 <= sample < len(self.samples):
            raise IndexError(f"sample={sample}: this trace has {len(self.samples)} samples, counted from 0")
        if not 0 <= layer < self.layers:
            raise IndexError(f"layer={layer}: the model has {self.layers} layers, counted from 0")
        return self.samples[sample]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python objects for JSON; `from_dict` reads them.

        Lists of tokens and cells are stored as runs: a number, or ``[first, end]`` for ``first, ..., end - 1``.

        Returns
        -------
        dict
            The trace.
        """
        return {
            "layers": self.layers,
            "steps": self.steps,
            "samples": [
                {
                    "visual_tokens": sample.visual_tokens,
                    "earlier": sample.earlier,
                    "groups": [
                        vars(group)
                        | {
                            "grid": None if group.grid is None else list(group.grid),
                            "tokens": to_runs(group.tokens),
                            "cells": to_runs(group.cells),
                        }
                        for group in sample.groups
                    ],
                    "prefill": [
                        {
                            "layer": stage.layer,
                            "kept": to_runs(stage.kept),
                            "stands_for": [
                                [token, None if others is None else to_runs(others)]
                                for token, others in stage.stands_for
                            ],
                        }
                        for stage in sample.prefill
                    ],
                    "decode": [
                        [{"step": c.step, "gone": to_runs(c.gone), "back": to_runs(c.back)} for c in changes]
                        for changes in sample.decode
                    ],
                }
                for sample in self.samples
            ],
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Trace:
        """Read the output of `to_dict`, directly or after JSON.

        Parameters
        ----------
        data : dict
            Output of `to_dict`.

        Returns
        -------
        Trace
            The trace.

        Raises
        ------
        KeyError
            If a value is missing.
        """
        return Trace(
            layers=data["layers"],
            steps=data["steps"],
            samples=tuple(
                SampleTrace(
                    visual_tokens=sample["visual_tokens"],
                    earlier=sample["earlier"],
                    groups=tuple(
                        TokenGroup(
                            **group
                            | {
                                "grid": None if group["grid"] is None else tuple(group["grid"]),
                                "tokens": from_runs(group["tokens"]),
                                "cells": from_runs(group["cells"]),
                            }
                        )
                        for group in sample["groups"]
                    ),
                    prefill=tuple(
                        PrefillStage(
                            stage["layer"],
                            from_runs(stage["kept"]),
                            tuple(
                                (token, None if others is None else from_runs(others))
                                for token, others in stage["stands_for"]
                            ),
                        )
                        for stage in sample["prefill"]
                    ),
                    decode=tuple(
                        tuple(CacheChange(c["step"], from_runs(c["gone"]), from_runs(c["back"])) for c in changes)
                        for changes in sample["decode"]
                    ),
                )
                for sample in data["samples"]
            ),
        )


def to_runs(numbers: Sequence[int]) -> list[int | list[int]]:
    """Convert numbers to runs: ``[4, 5, 6, 9]`` becomes ``[[4, 7], 9]``.

    Parameters
    ----------
    numbers : sequence of int
        The numbers.

    Returns
    -------
    list
        Single numbers, and ``[first, end]`` for consecutive numbers from ``first`` to ``end - 1``.
    """
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    runs = [(numbers[i], numbers[j - 1]) for i, j in pairwise([0, *breaks, len(numbers)]) if i < j]
    return [first if first == last else [first, last + 1] for first, last in runs]


def from_runs(runs: Iterable[int | Sequence[int]]) -> tuple[int, ...]:
    """Convert runs back to numbers.

    Parameters
    ----------
    runs : iterable
        Output of `to_runs`.

    Returns
    -------
    tuple of int
        The numbers.
    """
    return tuple(n for run in runs for n in ([run] if isinstance(run, int) else range(*run)))
