"""What the vision tower computed for the images of a prompt: kept from the encoding until the decoder begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.architectures.spec import VisionTower
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.engine.attention import interception
from vistrim.engine.hooks import Hooks
from vistrim.engine.tokens.masks import visible
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods.base.stage_inputs import VisionTokens


@dataclass
class Arranged:
    """What the tower computed for the visual tokens of one modality.

    Attributes
    ----------
    received : dict
        For each block that is read, ``[visual tokens]`` float32: attention received.
    states : dict
        For each block that is read, ``[visual tokens, width]``: its output.
    features : Tensor
        ``[visual tokens, width]``: the tower's output.
    """

    received: dict[int, Tensor]
    states: dict[int, Tensor]
    features: Tensor

    def only(self, stays: Tensor) -> Arranged:
        """The same for the visual tokens with True in ``stays``."""
        stays = stays.to(self.features.device)
        return Arranged(
            {block: values[stays] for block, values in self.received.items()},
            {block: values[stays] for block, values in self.states.items()},
            self.features[stays],
        )


@dataclass
class TowerRecord:
    """What the tower computed for the images that one generation (or bare forward pass) has encoded.

    Attributes
    ----------
    tower : VisionTower
        The tower.
    rows : dict
        For each block that is read, the attention of each call since the last encoding was finished.
    states : dict
        The same for its output ``[pictures, tokens, width]``.
    features : list
        The same for the tower's output.
    finished : dict
        For each modality, what these came to.
    """

    tower: VisionTower
    rows: dict[int, list[AttentionRows]] = field(default_factory=dict)
    states: dict[int, list[Tensor]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    finished: dict[str, Arranged] = field(default_factory=dict)

    def read(self, block: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Take the attention of a block; see `vistrim.engine.attention.interception.AttentionReader`."""
        pictures, _, rows, _ = query.shape
        seen = counted = None
        if mask is not None and self.tower.packed is None:
            # Padding sees nothing that counts.
            seen = visible(mask)[:, 0].expand(pictures, rows, -1)
            counted = seen.diagonal(dim1=1, dim2=2)
        if self.tower.has_cls:
            # A copy, so that the other rows are not held.
            query, counted = query[:, :, :1].clone(), None
            seen = seen[:, :1] if seen is not None else None
        places = torch.arange(query.shape[2], device=query.device).expand(pictures, -1)
        attention = AttentionRows(query, key, seen, softmax, key.shape[2], places, counted)
        self.rows.setdefault(block, []).append(attention)

    def read_states(self, states: Tensor, block: int) -> None:
        """Take the output ``[pictures, tokens, width]`` of a block."""
        self.states.setdefault(block, []).append(states.detach())

    def read_features(self, features: Tensor) -> None:
        """Take the output ``[pictures, tokens, width]`` of the tower."""
        self.features.append(features.detach())

    def finish(self, modality: str, arguments: Mapping[str, Any]) -> None:
        """Arrange what was taken by visual tokens, so that no queries and keys are held while an answer is generated.

        Parameters
        ----------
        modality : str
            "image" or "video".
        arguments : mapping
            Those of the call that encoded, by name.
        """
        arrange = self.tower.arrange
        sizes = self.tower.packed(modality, arguments) if self.tower.packed is not None else None
        self.finished[modality] = Arranged(
            {b: arrange(_received(rows, sizes), modality, arguments) for b, rows in self.rows.items()},
            {b: arrange(states, modality, arguments) for b, states in self.states.items()},
            arrange(self.features, modality, arguments),
        )
        for taken in (self.rows, self.states, self.features):
            taken.clear()

    def tokens(
        self, placeholders: Mapping[str, Tensor], stays: Mapping[str, Tensor], device: torch.device
    ) -> VisionTokens:
        """Bring everything to the places of the images in the prompts.

        Parameters
        ----------
        placeholders : mapping of str to Tensor
            For each modality ``[batch, tokens]`` bool: places of its features.
        stays : mapping of str to Tensor
            For each modality of which the model itself leaves features out, ``[features]`` bool: False for those.
        device : torch.device
            Of the result.

        Raises
        ------
        UnsupportedGenerationError
            If the images were not encoded in this generation.
        """
        source = torch.full_like(next(iter(placeholders.values())), -1, dtype=torch.long, device=device)
        found, features = [], 0
        for modality, places in placeholders.items():
            total = int(places.sum())
            if total == 0:
                continue
            arranged = self.finished.get(modality)
            if arranged is not None and modality in stays:
                arranged = arranged.only(stays[modality])
            own = len(arranged.features) if arranged is not None else 0
            if arranged is None or total % own:
                raise UnsupportedGenerationError(
                    "this method needs what the vision tower computes on its way, but the images were encoded before: "
                    "pass `pixel_values`, so that the tower runs"
                )
            # Beam search and several answers repeat each sample, but encode its images once.
            first = places[:: total // own].to(device)
            number = (first.flatten().cumsum(0) - 1 + features).view(first.shape)
            here = torch.where(first, number, -1).repeat_interleave(total // own, 0)
            source = torch.maximum(source, here)
            found.append(arranged)
            features += own
        return VisionTokens(
            attention=_together([arranged.received for arranged in found], device),
            source=source,
            states=_together([arranged.states for arranged in found], device),
            features=torch.cat([arranged.features for arranged in found]).to(device),
        )


def _received(calls: Sequence[AttentionRows], sizes: list[int] | None) -> list[Tensor]:
    """Attention that the tokens of each call receive: the mean over all rows of their picture.

    ``sizes`` are the tokens of each picture where the pictures follow each other in one sequence, else None.
    """
    if sizes is None:
        return [call.received() for call in calls]
    total = torch.cat([_sum_over_rows(part) for call in calls for part in _pictures(call, sizes)], 1)
    # A row that sees only a window of its picture pays nothing to the rest of it.
    rows = torch.tensor(sizes, device=total.device)
    return [total / rows.repeat_interleave(rows)]


def _pictures(call: AttentionRows, sizes: list[int]) -> list[AttentionRows]:
    """One call for each picture, of a call for all of them (by a mask or a kernel that keeps them apart)."""
    if call.tokens != sum(sizes):
        return [call]
    pieces = zip(call.query.split(sizes, 2), call.key.split(sizes, 2), call.places.split(sizes, 1), strict=True)
    return [AttentionRows(query, key, None, call.softmax, key.shape[2], places) for query, key, places in pieces]


def _sum_over_rows(call: AttentionRows) -> Tensor:
    return call.received() * call.query.shape[2]


def _together(parts: Sequence[Mapping[int, Tensor]], device: torch.device) -> dict[int, Tensor]:
    """The values of all modalities one behind the other, for each block."""
    return {block: torch.cat([part[block] for part in parts]).to(device) for block in parts[0]}


CurrentRecord = Callable[[], TowerRecord | None]
"""Returns the record of the thread that asks, if it keeps one."""


def watch(
    tower: VisionTower, attention: Sequence[int], states: Sequence[int], current: CurrentRecord, hooks: Hooks
) -> None:
    """Have attention and output of some blocks, and the tower's features, noted."""
    for block in attention:
        interception.install(tower.attentions[block], partial(_intercept, current, block))
        hooks.undo_with(partial(interception.remove, tower.attentions[block]))
    for block in states:
        note = partial(TowerRecord.read_states, block=block)
        hooks.keep(tower.blocks[block].register_forward_hook(partial(_note, current, note)))
    hooks.keep(tower.features.register_forward_hook(partial(_note, current, TowerRecord.read_features)))
    if tower.for_videos is not None:
        watch(tower.for_videos, attention, states, current, hooks)


def _intercept(current: CurrentRecord, block: int) -> interception.Interception | None:
    record = current()
    return None if record is None else interception.Interception(partial(record.read, block))


def _note(
    current: CurrentRecord, note: Callable[..., None], module: nn.Module, args: tuple[Any, ...], output: Any
) -> None:
    if (record := current()) is not None:
        output = output if isinstance(output, Tensor) else output[0]
        # Packed pictures may come without a batch.
        note(record, output if output.dim() == 3 else output[None])


def check_features(tower: VisionTower, arguments: Mapping[str, Any], name: str) -> None:
    """Refuse a call that overrides which features of the tower a method reads.

    Raises
    ------
    UnsupportedGenerationError
        With the way out; ``name`` is the method's.
    """
    for setting, value in tower.settings.items():
        if arguments.get(setting) not in (None, value):
            raise UnsupportedGenerationError(
                f"{name} reads the features that the model's config names: leave out `{setting}`, or set "
                f"model.config.{setting} before trimming"
            )
