"""Which visual tokens each layer held, and where they lie on their images: plain data without tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vistrim.core.layout import Grid

Tokens = tuple[int, ...]
"""Numbers of visual tokens of a sample, in prompt order from 0."""


@dataclass(frozen=True)
class Place:
    """Where a visual token lies.

    Attributes
    ----------
    modality, image, part, number
        Of its `TokenGroup`.
    row, column : int or None
        In the group's grid, from the upper left corner; None where the group has no grid.
    reason : str
        Why there is no row and column; empty if there is one.
    """

    modality: str
    image: int | None
    part: str
    number: int
    row: int | None
    column: int | None
    reason: str


@dataclass(frozen=True)
class TokenGroup:
    """Visual tokens that lie on one grid, or a part of an image without a grid.

    Attributes
    ----------
    modality : str
        "image" or "video".
    image : int or None
        Which of the sample's images (or videos), from 0. None: the sample has several pictures, and the model is not
        told whether they are images or tiles of one (Idefics 3, InternVL); `vistrim.analysis.regions_of` asks the
        processor.
    part : str
        "whole" (the image), "tile" or "frame" (what the vision tower saw by itself), "overview" (the whole image
        where the model puts its tiles together), "tiles" (all tiles put together: rows and columns count over all of
        them), "separators" (tokens between rows, which show nothing) or "picture" (an image or a tile of one).
    number : int
        Which tile, frame or picture, from 0.
    grid : tuple of int or None
        Rows and columns; None: the tokens form no grid, or it is not known.
    tokens : tuple of int
        The tokens; in raster order where there is a grid.
    cells : tuple of int
        Their cells in the grid in raster order: row * columns + column. A cell may be missing, where its token cannot
        be removed because the prompt ends with it. Empty without a grid.
    reason : str
        Why there is no grid; empty if there is one.
    """

    modality: str
    image: int | None
    part: str
    number: int
    grid: Grid | None
    tokens: Tokens
    cells: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class PrefillStage:
    """Visual tokens that layers processed in prefill, from one layer up to the next stage.

    Attributes
    ----------
    layer : int
        First decoder layer of the stage.
    kept : tuple of int
        The tokens.
    stands_for : tuple of (int, tuple of int or None)
        Those of them that stand for several tokens, and for which, themselves included: hidden states of these were
        averaged. None: the method made a state of its own (`vistrim.QueCC`), which stands for no certain tokens.
    """

    layer: int
    kept: Tokens
    stands_for: tuple[tuple[int, Tokens | None], ...] = ()


@dataclass(frozen=True)
class CacheChange:
    """A step after which the cache of a layer held other visual tokens than before.

    Attributes
    ----------
    step : int
        The decoding step; 0: the end of the prefill.
    gone : tuple of int
        Tokens that it no longer holds.
    back : tuple of int
        Tokens that it holds in addition: those of earlier turns, at step 0, or of another beam that took this row.
    """

    step: int
    gone: Tokens
    back: Tokens = ()


@dataclass(frozen=True)
class SampleTrace:
    """One sample: a row of the batch, so that copies for beams or several answers have one each.

    Attributes
    ----------
    visual_tokens : int
        Visual tokens of this prompt. A token that cannot be removed, such as the last of a prompt, is text.
    earlier : int
        Visual tokens of earlier turns that the cache still held. They come first in the numbering: the prompt's own
        begin with this number. Where they lie is in the trace of their own turn.
    groups : tuple of TokenGroup
        Where the prompt's tokens lie: each is in one group.
    prefill : tuple of PrefillStage
        What the layers processed; the first stage begins at layer 0.
    decode : tuple of tuple of CacheChange
        For each layer, how its cache then came to hold other tokens; empty where it never did.
    """

    visual_tokens: int
    earlier: int
    groups: tuple[TokenGroup, ...]
    prefill: tuple[PrefillStage, ...]
    decode: tuple[tuple[CacheChange, ...], ...]

    @staticmethod
    def unseen(visual_tokens: int, layers: int, reason: str) -> SampleTrace:
        """The trace of a sample of which the model has processed nothing."""
        group = TokenGroup("image", 0, "whole", 0, None, tuple(range(visual_tokens)), (), reason)
        groups = (group,) if visual_tokens else ()
        return SampleTrace(visual_tokens, 0, groups, (PrefillStage(0, ()),), ((),) * layers)

    def stage(self, layer: int) -> PrefillStage:
        """The stage of the prefill that a layer belongs to."""
        return [stage for stage in self.prefill if stage.layer <= layer][-1]

    @property
    def trims_prefill(self) -> bool:
        """Whether some layer processed fewer tokens than the prompt has."""
        return len(self.prefill[-1].kept) < self.visual_tokens


@dataclass(frozen=True)
class Trace:
    """Which visual tokens each decoder layer processed in prefill and held while decoding.

    Tokens are numbered per sample in prompt order, from 0 (see `SampleTrace.earlier`).

    A layer with a sliding window also forgets tokens by itself, which shows as well. Without a KV cache, each step
    repeats the prefill and its choice. A method that cuts inside the layers (`vistrim.YOPO`) removes no token by that.

    Attributes
    ----------
    layers : int
        Decoder layers.
    steps : int
        Forward passes behind the prefill: decoding steps. The last token of an answer takes none.
    samples : tuple of SampleTrace
        The rows of the batch.
    """

    layers: int
    steps: int
    samples: tuple[SampleTrace, ...]

    def processed(self, sample: int, layer: int) -> Tokens:
        """Visual tokens of the prompt that a layer processed in prefill, in order.

        Raises
        ------
        IndexError
            If there is no such sample or layer.
        """
        return self._sample(sample, layer).stage(layer).kept

    def kept(self, sample: int, layer: int, step: int = 0) -> Tokens:
        """Visual tokens that a layer's cache holds after a step, in order.

        Parameters
        ----------
        sample : int
            Row of the batch.
        layer : int
            Decoder layer.
        step : int
            Decoding step; 0: the prefill.

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
        """Tokens that stand for several at a layer, and for which; see `PrefillStage.stands_for`.

        Raises
        ------
        IndexError
            If there is no such sample or layer.
        """
        return dict(self._sample(sample, layer).stage(layer).stands_for)

    def place(self, sample: int, token: int) -> Place:
        """Where a token lies.

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
        """As plain Python objects for JSON; `from_dict` reads them.

        Lists of tokens and cells are runs: a number, or ``[first, end]`` for ``first, first + 1, ..., end - 1``.
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
        """Read what `to_dict` wrote, also when it has been through JSON.

        Raises
        ------
        KeyError
            If something is missing.
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
    """Write numbers as runs: ``[4, 5, 6, 9]`` becomes ``[[4, 7], 9]``."""
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    runs = [(numbers[i], numbers[j - 1]) for i, j in pairwise([0, *breaks, len(numbers)]) if i < j]
    return [first if first == last else [first, last + 1] for first, last in runs]


def from_runs(runs: Iterable[int | Sequence[int]]) -> tuple[int, ...]:
    """Read what `to_runs` wrote."""
    return tuple(n for run in runs for n in ([run] if isinstance(run, int) else range(*run)))
