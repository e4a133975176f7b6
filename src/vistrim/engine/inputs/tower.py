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


@dataclass(frozen=True)
class VisionReads:
    """What of a vision tower is read besides its output.

    Attributes
    ----------
    attention, states, keys : tuple of int
        Blocks whose attention, whose output, and whose queries and keys.
    class_token : bool
        Whether its class token is.
    """

    attention: tuple[int, ...] = ()
    states: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    class_token: bool = False


ByBlock = dict[int, Tensor]


@dataclass
class Arranged:
    """What the tower computed for the visual tokens of one modality.

    Attributes
    ----------
    received : dict
        For each block that is read, ``[visual tokens]`` float32: attention received.
    states : dict
        For each block that is read, ``[visual tokens, width]``: its output.
    queries, keys : dict
        For each block that is read, ``[visual tokens, head_dim]`` float32: the mean over its heads.
    features : Tensor
        ``[visual tokens, width]``: the tower's output.
    class_states : Tensor or None
        ``[visual tokens, width]``: the same for the class token beside them, if it is read.
    """

    received: ByBlock
    states: ByBlock
    queries: ByBlock
    keys: ByBlock
    features: Tensor
    class_states: Tensor | None

    def only(self, stays: Tensor) -> Arranged:
        """The same for the visual tokens with True in ``stays``."""
        stays = stays.to(self.features.device)

        def left(values: ByBlock) -> ByBlock:
            return {block: value[stays] for block, value in values.items()}

        return Arranged(
            received=left(self.received),
            states=left(self.states),
            queries=left(self.queries),
            keys=left(self.keys),
            features=self.features[stays],
            class_states=self.class_states[stays] if self.class_states is not None else None,
        )


@dataclass
class TowerRecord:
    """What the tower computed for the images that one generation (or bare forward pass) has encoded.

    Attributes
    ----------
    tower : VisionTower
        The tower.
    reads : VisionReads
        What is read of it.
    rows : dict
        For each block that is read, the attention of each call since the last encoding was finished.
    states : dict
        The same for its output ``[pictures, tokens, width]``.
    queries, keys : dict
        The same for the mean over its heads ``[pictures, tokens, head_dim]``.
    features : list
        The same for the tower's output.
    finished : dict
        For each modality, what these came to.
    """

    tower: VisionTower
    reads: VisionReads
    rows: dict[int, list[AttentionRows]] = field(default_factory=dict)
    states: dict[int, list[Tensor]] = field(default_factory=dict)
    queries: dict[int, list[Tensor]] = field(default_factory=dict)
    keys: dict[int, list[Tensor]] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    finished: dict[str, Arranged] = field(default_factory=dict)

    def read(self, block: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Take the attention of a block; see `vistrim.engine.attention.interception.AttentionReader`."""
        if block in self.reads.keys:
            self.queries.setdefault(block, []).append(query.float().mean(1))
            self.keys.setdefault(block, []).append(key.float().mean(1))
        if block not in self.reads.attention:
            return
        images, _, rows, _ = query.shape
        seen = counted = None
        if mask is not None and self.tower.packed is None:
            # Padding sees nothing that counts.
            seen = visible(mask)[:, 0].expand(images, rows, -1)
            counted = seen.diagonal(dim1=1, dim2=2)
        if self.tower.has_cls:
            # A copy, so that the other rows are not held.
            query, counted = query[:, :, :1].clone(), None
            seen = seen[:, :1] if seen is not None else None
        places = torch.arange(query.shape[2], device=query.device).expand(images, -1)
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

        def arranged(taken: Mapping[int, Sequence[Tensor]]) -> ByBlock:
            return {block: arrange(parts, modality, arguments) for block, parts in taken.items()}

        class_states = None
        if self.reads.class_token:
            # Beside each token of its picture, so that it comes to be wherever these come to be.
            class_states = arrange([part[:, :1].expand_as(part) for part in self.features], modality, arguments)
        self.finished[modality] = Arranged(
            received=arranged({block: _received(rows, sizes) for block, rows in self.rows.items()}),
            states=arranged(self.states),
            queries=arranged(self.queries),
            keys=arranged(self.keys),
            features=arrange(self.features, modality, arguments),
            class_states=class_states,
        )
        for taken in (self.rows, self.states, self.queries, self.keys, self.features):
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
            queries=_together([arranged.queries for arranged in found], device),
            keys=_together([arranged.keys for arranged in found], device),
            features=torch.cat([arranged.features for arranged in found]).to(device),
            class_states=_joined([arranged.class_states for arranged in found], device),
            project=self._project if self.tower.project is not None else None,
        )

    @torch.no_grad()
    def _project(self, rows: Tensor) -> Tensor:
        """Embeddings of rows ``[n, width]``, on their device."""
        project = self.tower.project
        assert project is not None
        weight = next(project.parameters())
        there = rows if weight.is_meta else rows.to(weight)
        return project(there).to(rows.device)


def _received(calls: Sequence[AttentionRows], sizes: list[int] | None) -> list[Tensor]:
    """Attention that the tokens of each call receive: the mean over all rows of their picture.

    ``sizes`` are the tokens of each picture where the pictures follow each other in one sequence, else None.
    """
    if sizes is None:
        return [call.received() for call in calls]
    total = torch.cat([_sum_over_rows(part) for call in calls for part in _split_images(call, sizes)], 1)
    # A row that sees only a window of its picture pays nothing to the rest of it.
    rows = torch.tensor(sizes, device=total.device)
    return [total / rows.repeat_interleave(rows)]


def _split_images(call: AttentionRows, sizes: list[int]) -> list[AttentionRows]:
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


def _joined(parts: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there).to(device) if there else None


CurrentRecord = Callable[[], TowerRecord | None]
"""Returns the record of the thread that asks, if it keeps one."""


def watch(tower: VisionTower, reads: VisionReads, current: CurrentRecord, hooks: Hooks) -> None:
    """Have noted what is read of a tower, and its features."""
    for block in sorted({*reads.attention, *reads.keys}):
        interception.install(tower.attentions[block], partial(_intercept, current, block))
        hooks.undo_with(partial(interception.remove, tower.attentions[block]))
    for block in reads.states:
        note = partial(TowerRecord.read_states, block=block)
        hooks.keep(tower.blocks[block].register_forward_hook(partial(_note, current, note)))
    hooks.keep(tower.features.register_forward_hook(partial(_note, current, TowerRecord.read_features)))
    if tower.for_videos is not None:
        watch(tower.for_videos, reads, current, hooks)


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
