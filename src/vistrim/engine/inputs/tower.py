"""Values that a method reads from the vision tower, kept from the encoding until the decoder runs."""

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
    """Parts of a vision tower that are read besides its output.

    Attributes
    ----------
    attention, states, keys : tuple of int
        Blocks whose attention, output, or queries and keys are read.
    class_token : bool
        Whether its class token is read.
    """

    attention: tuple[int, ...] = ()
    states: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    class_token: bool = False


ByBlock = dict[int, Tensor]


@dataclass
class Arranged:
    """Values of the tower for the visual tokens of one modality.

    Attributes
    ----------
    received : dict
        Attention received, ``[visual tokens]`` float32, for each block that is read.
    states : dict
        Output, ``[visual tokens, width]``, of each block that is read.
    queries, keys : dict
        Mean over the heads, ``[visual tokens, head_dim]`` float32, for each block that is read.
    features : Tensor
        ``[visual tokens, width]``: output of the tower.
    class_states : Tensor or None
        ``[visual tokens, width]``: output of the tower for the class token of the same image, if it is read.
    """

    received: ByBlock
    states: ByBlock
    queries: ByBlock
    keys: ByBlock
    features: Tensor
    class_states: Tensor | None

    def only(self, stays: Tensor) -> Arranged:
        """Select the visual tokens with True in ``stays``."""
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
    """Values of the tower for the images encoded in one generation or bare forward pass.

    Attributes
    ----------
    tower : VisionTower
        The tower.
    reads : VisionReads
        Parts of the tower that are read.
    rows : dict
        Attention of each call since the last finished encoding, for each block that is read.
    states : dict
        The same for the output ``[images, tokens, width]`` of the blocks.
    queries, keys : dict
        The same for the mean over their heads, ``[images, tokens, head_dim]``.
    features : list
        The same for the output of the tower.
    finished : dict
        Arranged values of each modality.
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
        """Store the attention of a block; see `vistrim.engine.attention.interception.AttentionReader`."""
        if block in self.reads.keys:
            self.queries.setdefault(block, []).append(query.float().mean(1))
            self.keys.setdefault(block, []).append(key.float().mean(1))
        if block not in self.reads.attention:
            return
        images, _, rows, _ = query.shape
        seen = counted = None
        if mask is not None and self.tower.packed is None:
            # Padding rows do not count.
            seen = visible(mask)[:, 0].expand(images, rows, -1)
            counted = seen.diagonal(dim1=1, dim2=2)
        if self.tower.has_cls:
            # Copied, so that the other rows can be freed.
            query, counted = query[:, :, :1].clone(), None
            seen = seen[:, :1] if seen is not None else None
        places = torch.arange(query.shape[2], device=query.device).expand(images, -1)
        attention = AttentionRows(query, key, seen, softmax, key.shape[2], places, counted)
        self.rows.setdefault(block, []).append(attention)

    def read_states(self, states: Tensor, block: int) -> None:
        """Store the output ``[images, tokens, width]`` of a block."""
        self.states.setdefault(block, []).append(states.detach())

    def read_features(self, features: Tensor) -> None:
        """Store the output ``[images, tokens, width]`` of the tower."""
        self.features.append(features.detach())

    def finish(self, modality: str, arguments: Mapping[str, Any]) -> None:
        """Arrange the stored values by visual token, and release queries and keys.

        Parameters
        ----------
        modality : str
            "image" or "video".
        arguments : mapping
            Arguments of the encoding call, by name.
        """
        arrange = self.tower.arrange
        sizes = self.tower.packed(modality, arguments) if self.tower.packed is not None else None

        def arranged(taken: Mapping[int, Sequence[Tensor]]) -> ByBlock:
            return {block: arrange(parts, modality, arguments) for block, parts in taken.items()}

        class_states = None
        if self.reads.class_token:
            # Repeated for each token of its image, so that it is arranged together with them.
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
        """Map all values to the places of the images in the prompts.

        Parameters
        ----------
        placeholders : mapping of str to Tensor
            Places of the features of each modality, ``[batch, tokens]`` bool.
        stays : mapping of str to Tensor
            ``[features]`` bool for each modality of which the model itself drops features, False for those.
        device : torch.device
            Device of the result.

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
                    "this method reads intermediate values of the vision tower, but the images are already encoded: "
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
        """Project rows ``[n, width]`` to embeddings, on their device."""
        project = self.tower.project
        assert project is not None
        weight = next(project.parameters())
        there = rows if weight.is_meta else rows.to(weight)
        return project(there).to(rows.device)


def _received(calls: Sequence[AttentionRows], sizes: list[int] | None) -> list[Tensor]:
    """Compute the attention that the tokens of each call receive, averaged over all rows of their image.

    ``sizes`` are the numbers of tokens of images packed into one sequence, or None.
    """
    if sizes is None:
        return [call.received() for call in calls]
    total = torch.cat([_sum_over_rows(part) for call in calls for part in _split_images(call, sizes)], 1)
    # A row gives no attention to tokens outside of its window.
    rows = torch.tensor(sizes, device=total.device)
    return [total / rows.repeat_interleave(rows)]


def _split_images(call: AttentionRows, sizes: list[int]) -> list[AttentionRows]:
    """Split a call for several packed images, separated by a mask or by the kernel, into one per image."""
    if call.tokens != sum(sizes):
        return [call]
    pieces = zip(call.query.split(sizes, 2), call.key.split(sizes, 2), call.places.split(sizes, 1), strict=True)
    return [AttentionRows(query, key, None, call.softmax, key.shape[2], places) for query, key, places in pieces]


def _sum_over_rows(call: AttentionRows) -> Tensor:
    return call.received() * call.query.shape[2]


def _together(parts: Sequence[Mapping[int, Tensor]], device: torch.device) -> dict[int, Tensor]:
    """Concatenate the values of all modalities, for each block."""
    return {block: torch.cat([part[block] for part in parts]).to(device) for block in parts[0]}


def _joined(parts: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there).to(device) if there else None


CurrentRecord = Callable[[], TowerRecord | None]
"""Returns the record of the calling thread, if it has one."""


def watch(tower: VisionTower, reads: VisionReads, current: CurrentRecord, hooks: Hooks) -> None:
    """Record the output of a tower, and the parts of it that are read."""
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
        # Packed images may not have a batch dimension.
        note(record, output if output.dim() == 3 else output[None])


def check_features(tower: VisionTower, arguments: Mapping[str, Any], name: str) -> None:
    """Refuse a call that overrides the tower features that the method ``name`` reads.

    Raises
    ------
    UnsupportedGenerationError
        If it does. The message names the fix.
    """
    for setting, value in tower.settings.items():
        if arguments.get(setting) not in (None, value):
            raise UnsupportedGenerationError(
                f"{name} reads the features that the model's config selects: leave out `{setting}`, or set "
                f"model.config.{setting} before trimming"
            )
