"""Follows which visual tokens the layers hold, for a generation that is to have a trace.

It looks at the caches after each forward pass, rather than at what methods ask for: whatever makes them forget a token
shows. All of it is copied to the host, so that no tensor lives longer for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.report.token_groups import token_groups
from vistrim.engine.report.trace import CacheChange, PrefillStage, SampleTrace, TokenGroup, Trace
from vistrim.engine.report.trim_report import Stage
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.errors import UnsupportedGenerationError

Held = list[list[int]]
"""Per sample: slots of the visual tokens that a layer holds."""


@dataclass(frozen=True)
class Merged:
    """What a cut has made of tokens that stay.

    Attributes
    ----------
    slots : Tensor
        ``[batch, rows]`` long: the tokens before the cut.
    into : Tensor or None
        ``[batch, rows]`` long: the row that absorbs each of them, or -1; None: none was absorbed.
    replaced : bool
        Whether the tokens that stay were replaced by others.
    """

    slots: Tensor
    into: Tensor | None
    replaced: bool


@dataclass
class Tracer:
    """Collects a trace.

    Attributes
    ----------
    layers : int
        Decoder layers.
    parts_unknown : bool
        Whether a picture may be a tile of an image, which nothing tells the model.
    merged : list of Merged or None
        For each cut of the prefill.
    """

    layers: int
    parts_unknown: bool
    merged: list[Merged | None] = field(default_factory=list)
    _samples: list[_SampleNotes] = field(default_factory=list)
    _maps: dict[int, weakref.ref[TokenMap]] = field(default_factory=dict)

    def end_prefill(self, batch: int, past: int, source: Prompt | None, stages: Sequence[Stage]) -> None:
        """Note what the layers have processed, once the stages are settled (copies the prompt's maps to the host)."""
        if source is None:
            self._samples = [_SampleNotes([], past) for _ in range(batch)]
            return
        visual, slots = source.tokens.visual.cpu(), source.tokens.slots.cpu()
        self._samples = [_SampleNotes(slots[b][visual[b]].tolist(), past) for b in range(batch)]
        merged = [
            None if cut is None else (cut.slots.cpu(), cut.into.cpu() if cut.into is not None else None, cut.replaced)
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
                        modality, source.pictures.images[modality][b], tokens, self.parts_unknown
                    )

    def look_at(self, step: int, cache: Cache) -> None:
        """Note what a cache holds after a forward pass, where it has changed (then copied to the host)."""
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
        """Put the trace together."""
        return Trace(self.layers, steps, tuple(notes.traced(self.layers) for notes in self._samples))


@dataclass
class _SampleNotes:
    """One sample. Tokens of the prompt are numbered from 0 here, and those of earlier turns known by their slots.

    Attributes
    ----------
    slots : list of int
        Slots of the prompt's visual tokens.
    past : int
        Slot where the prompt begins.
    """

    slots: list[int]
    past: int
    groups: list[TokenGroup] = field(default_factory=list)
    stages: list[PrefillStage] = field(default_factory=lambda: [PrefillStage(0, ())])
    changes: dict[int, list[tuple[int, set[int], set[int]]]] = field(default_factory=dict)
    held: dict[int, set[int]] = field(default_factory=dict)

    def look_at(self, layer: int, step: int, slots: list[int]) -> None:
        """Note the slots of the visual tokens that a layer holds after a step."""
        if layer not in self.held:
            stage = [stage for stage in self.stages if stage.layer <= layer][-1]
            self.held[layer] = {self.slots[n] for n in stage.kept}
        before, now = self.held[layer], set(slots)
        if now != before:
            self.changes.setdefault(layer, []).append((step, before - now, now - before))
            self.held[layer] = now

    def traced(self, layers: int) -> SampleTrace:
        """Number the tokens of earlier turns and this one through."""
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
    """What one sample's layers have processed, and what each token stands for."""
    number = {slot: n for n, slot in enumerate(notes.slots)}
    found = [PrefillStage(0, tuple(range(len(notes.slots))))]
    stands_for: dict[int, tuple[int, ...] | None] = {}
    for stage, cut in zip(stages, merged, strict=True):
        kept = stage.kept[sample]
        if cut is not None:
            slots, into, replaced = cut
            if into is not None:
                _absorb(stands_for, [number.get(slot) for slot in slots[sample].tolist()], into[sample].tolist())
            if replaced:
                stands_for |= dict.fromkeys(kept)
        several = tuple((token, stands_for[token]) for token in kept if token in stands_for)
        found.append(PrefillStage(stage.layer, tuple(kept), several))
    # A cut before layer 0 leaves nothing of what was before it, and one that changes nothing of a sample is none.
    found = [a for a, b in zip(found, [*found[1:], None], strict=True) if b is None or b.layer > a.layer]
    return [
        stage
        for stage, last in zip(found, [None, *found], strict=False)
        if last is None or (stage.kept, stage.stands_for) != (last.kept, last.stands_for)
    ]


def _absorb(stands_for: dict[int, tuple[int, ...] | None], number: Sequence[int | None], into: Sequence[int]) -> None:
    """Add what rows have absorbed; what a state of unknown origin has a part in stays unknown."""
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
