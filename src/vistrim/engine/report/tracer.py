"""Records the visual tokens that the layers hold, for a generation with a trace.

The caches are inspected after each forward pass, so that the trace includes evictions of any origin. Everything is
copied to the host, so that no tensor is kept alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.report.token_groups import TokenGroup, token_groups
from vistrim.engine.report.trace import CacheChange, PrefillStage, SampleTrace, Trace
from vistrim.engine.report.trim_report import Stage
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.errors import UnsupportedGenerationError

Held = list[list[int]]
"""Slots of the visual tokens that a layer holds, per sample."""


@dataclass(frozen=True)
class Merged:
    """Tokens that a cut merged or replaced.

    Attributes
    ----------
    slots : Tensor
        ``[batch, rows]`` long: the tokens before the cut.
    into : Tensor or None
        ``[batch, rows]`` long: the row that absorbs each token, or -1. None: no token was absorbed.
    replaced : Tensor or None
        ``[batch, rows]`` bool, True for remaining tokens whose hidden states were replaced. None: no token was.
    """

    slots: Tensor
    into: Tensor | None
    replaced: Tensor | None


@dataclass
class Tracer:
    """Collects a trace.

    Attributes
    ----------
    layers : int
        Decoder layers.
    parts_unknown : bool
        Whether the model is not told which inputs of the vision tower are tiles of one image.
    merged : list of Merged or None
        Merged tokens of each cut of the prefill.
    """

    layers: int
    parts_unknown: bool
    merged: list[Merged | None] = field(default_factory=list)
    _samples: list[_SampleNotes] = field(default_factory=list)
    _maps: dict[int, weakref.ref[TokenMap]] = field(default_factory=dict)

    def end_prefill(self, batch: int, past: int, source: Prompt | None, stages: Sequence[Stage]) -> None:
        """Record the tokens that the layers processed, after ``stages`` is complete. Copies the maps to the host."""
        if source is None:
            self._samples = [_SampleNotes([], past) for _ in range(batch)]
            return
        visual, slots = source.tokens.visual.cpu(), source.tokens.slots.cpu()
        self._samples = [_SampleNotes(slots[b][visual[b]].tolist(), past) for b in range(batch)]
        merged = [
            None
            if cut is None
            else tuple(None if part is None else part.cpu() for part in (cut.slots, cut.into, cut.replaced))
            for cut in self.merged
        ]
        self.merged = []
        for b, notes in enumerate(self._samples):
            notes.stages = _stages(b, notes, stages, merged)
        if source.inputs.placeholders:
            places = {modality: found.cpu() for modality, found in source.inputs.placeholders.items()}
            for b, notes in enumerate(self._samples):
                number = {slot: n for n, slot in enumerate(notes.slots)}
                for modality, found in places.items():
                    tokens = [number.get(slot) for slot in slots[b][found[b]].tolist()]
                    notes.groups += token_groups(
                        modality, source.images.by_modality[modality][b], tokens, self.parts_unknown
                    )

    def look_at(self, step: int, cache: Cache) -> None:
        """Record the changes of a cache after a forward pass. Copies changed maps to the host."""
        known: dict[int, Held] = {}
        for number, layer in enumerate(cache.layers):
            tokens: TokenMap | None = layer.tokens
            last = self._maps.get(number)
            if tokens is None or (last is not None and last() is tokens):
                continue
            self._maps[number] = weakref.ref(tokens)
            if id(tokens) not in known:
                slots, visual = tokens.slots.cpu(), tokens.visual.cpu()
                known[id(tokens)] = [own[flags].tolist() for own, flags in zip(slots, visual, strict=True)]
            if len(known[id(tokens)]) != len(self._samples):
                raise UnsupportedGenerationError(
                    f"a trace cannot follow a batch that has {len(known[id(tokens)])} rows in its cache and had "
                    f"{len(self._samples)} in prefill: leave out trace=True, or repeat the samples before the prefill"
                )
            for notes, held in zip(self._samples, known[id(tokens)], strict=True):
                notes.look_at(number, step, held)

    def trace(self, steps: int) -> Trace:
        """Create the trace."""
        return Trace(self.layers, steps, tuple(notes.traced(self.layers) for notes in self._samples))


@dataclass
class _SampleNotes:
    """Records of one sample. Tokens of the prompt are numbered from 0, and those of earlier turns have slots only.

    Attributes
    ----------
    slots : list of int
        Slots of the prompt's visual tokens.
    past : int
        First slot of the prompt.
    """

    slots: list[int]
    past: int
    groups: list[TokenGroup] = field(default_factory=list)
    stages: list[PrefillStage] = field(default_factory=lambda: [PrefillStage(0, ())])
    changes: dict[int, list[tuple[int, set[int], set[int]]]] = field(default_factory=dict)
    held: dict[int, set[int]] = field(default_factory=dict)

    def look_at(self, layer: int, step: int, slots: list[int]) -> None:
        """Record the slots of the visual tokens that a layer holds after a step."""
        if layer not in self.held:
            stage = [stage for stage in self.stages if stage.layer <= layer][-1]
            self.held[layer] = {self.slots[n] for n in stage.kept}
        before, now = self.held[layer], set(slots)
        if now != before:
            self.changes.setdefault(layer, []).append((step, before - now, now - before))
            self.held[layer] = now

    def traced(self, layers: int) -> SampleTrace:
        """Create the trace, with consecutive numbers for the tokens of earlier turns and of this one."""
        everything = (slot for changes in self.changes.values() for _, gone, back in changes for slot in gone | back)
        earlier = sorted({slot for slot in everything if slot < self.past})
        number = {slot: n for n, slot in enumerate([*earlier, *self.slots])}
        first = len(earlier)
        return SampleTrace(
            visual_tokens=len(self.slots),
            earlier=first,
            groups=tuple(_shifted(group, first) for group in self.groups),
            prefill=tuple(_stage_shifted(stage, first) for stage in self.stages),
            decode=tuple(
                tuple(
                    CacheChange(step, *(tuple(sorted(number[slot] for slot in some)) for some in (gone, back)))
                    for step, gone, back in self.changes.get(layer, ())
                )
                for layer in range(layers)
            ),
        )


def _stages(sample: int, notes: _SampleNotes, stages: Sequence[Stage], merged: Sequence[Any]) -> list[PrefillStage]:
    """List the tokens that the layers processed for one sample, and the tokens that merged ones represent."""
    number = {slot: n for n, slot in enumerate(notes.slots)}
    found = [PrefillStage(0, tuple(range(len(notes.slots))))]
    stands_for: dict[int, tuple[int, ...] | None] = {}
    for stage, cut in zip(stages, merged, strict=True):
        kept = stage.kept[sample]
        if cut is not None:
            slots, into, replaced = cut
            if into is not None:
                _absorb(stands_for, [number.get(slot) for slot in slots[sample].tolist()], into[sample].tolist())
            if replaced is not None:
                changed = {number.get(slot) for slot in slots[sample][replaced[sample]].tolist()}
                stands_for |= dict.fromkeys(token for token in kept if token in changed)
        several = tuple((token, stands_for[token]) for token in kept if token in stands_for)
        found.append(PrefillStage(stage.layer, tuple(kept), several))
    # A cut before layer 0 replaces the first stage. A cut that does not change a sample is omitted.
    found = [a for a, b in zip(found, [*found[1:], None], strict=True) if b is None or b.layer > a.layer]
    return [
        stage
        for stage, last in zip(found, [None, *found], strict=False)
        if last is None or (stage.kept, stage.stands_for) != (last.kept, last.stands_for)
    ]


def _absorb(stands_for: dict[int, tuple[int, ...] | None], number: Sequence[int | None], into: Sequence[int]) -> None:
    """Add the tokens that rows have absorbed. If the origin of one of them is unknown, the result is, too."""
    absorbed: dict[int, list[int]] = {}
    for row, target in enumerate(into):
        if target >= 0:
            absorbed.setdefault(target, []).append(row)
    for target, rows in absorbed.items():
        tokens = [token for row in (target, *rows) if (token := number[row]) is not None]
        known = [stands_for.get(token, (token,)) for token in tokens]
        whole = [n for some in known if some is not None for n in some]
        stands_for[tokens[0]] = None if None in known else tuple(sorted(whole))


def _shifted(group: TokenGroup, by: int) -> TokenGroup:
    return TokenGroup(**vars(group) | {"tokens": tuple(n + by for n in group.tokens)})


def _stage_shifted(stage: PrefillStage, by: int) -> PrefillStage:
    return PrefillStage(
        stage.layer,
        tuple(n + by for n in stage.kept),
        tuple((n + by, None if some is None else tuple(m + by for m in some)) for n, some in stage.stands_for),
    )
