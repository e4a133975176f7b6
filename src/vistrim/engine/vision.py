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
from vistrim.engine import tap
from vistrim.engine.hooks import Hooks
from vistrim.errors import UnsupportedGenerationError
from vistrim.methods.views import VisionTokens


@dataclass
class VisionRecord:
    """Attention rows and features of the images that one generation (or bare forward pass) has encoded.

    Attributes
    ----------
    tower : VisionTower
        The tower.
    rows : dict
        For each block that is read: the attention of each call of the tower, until it is asked for.
    received : dict
        For each block, ``[features]``: what these rows came to.
    features : list of Tensor
        ``[images, tokens, width]`` of each call: what the projector was given.
    states : dict
        For each block that is read: its output ``[images, tokens, width]`` of each call, with the class token.
    """

    tower: VisionTower
    rows: dict[int, list[AttentionRows]] = field(default_factory=dict)
    received: dict[int, Tensor] = field(default_factory=dict)
    features: list[Tensor] = field(default_factory=list)
    states: dict[int, list[Tensor]] = field(default_factory=dict)

    def read(self, block: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        """Take the attention of a block; see `vistrim.engine.tap.TapReader`."""
        if self.tower.has_cls:
            # A copy, so that the other rows are not held.
            query = query[:, :, :1].clone()
        images, _, rows, _ = query.shape
        places = torch.arange(rows, device=query.device).expand(images, -1)
        self.rows.setdefault(block, []).append(AttentionRows(query, key, None, softmax, key.shape[2], places))

    def read_features(self, features: Tensor) -> None:
        """Take the features ``[images, tokens, width]`` that the projector is given."""
        self.features.append(features.detach())

    def read_states(self, block: int, states: Tensor) -> None:
        """Take the output ``[images, tokens, width]`` of a block."""
        self.states.setdefault(block, []).append(states.detach())

    def tokens(self, placeholders: Tensor, total: int) -> VisionTokens:
        """Bring everything to the places of the images in the prompt.

        Parameters
        ----------
        placeholders : Tensor
            ``[batch, tokens]`` bool: places of image features.
        total : int
            Their number.

        Raises
        ------
        UnsupportedGenerationError
            If the images were not encoded in this generation.
        """
        found = sum(features.shape[0] * features.shape[1] for features in self.features)
        if not found or total % found:
            raise UnsupportedGenerationError(
                "this method needs what the vision tower computes on its way, but the images were encoded before: "
                "pass `pixel_values`, so that the tower runs"
            )
        # Beam search and several answers repeat each sample, but encode its images once.
        copies = total // found
        first = placeholders[::copies].flatten()
        source = torch.where(first, first.cumsum(0) - 1, -1)
        source = source.view(-1, placeholders.shape[1]).repeat_interleave(copies, 0)
        # Done once, so that the tower's queries and keys are not held while the answer is generated.
        self.received |= {block: self._received(rows) for block, rows in self.rows.items()}
        self.rows.clear()
        device = placeholders.device
        return VisionTokens(
            attention={block: received.to(device) for block, received in self.received.items()},
            features=torch.cat([features.flatten(0, 1) for features in self.features]).to(device),
            source=source,
            states={block: self._of_features(states).to(device) for block, states in self.states.items()},
        )

    def _of_features(self, states: list[Tensor]) -> Tensor:
        """``[features, width]``: a class token that is no feature stands in front of them."""
        kept = [s[:, -f.shape[1] :] for s, f in zip(states, self.features, strict=True)]
        return torch.cat([s.flatten(0, 1) for s in kept])

    def _received(self, rows: list[AttentionRows]) -> Tensor:
        """Attention received by the tokens that are features: a class token that is none stands in front of them."""
        kept = [r.received()[:, -f.shape[1] :] for r, f in zip(rows, self.features, strict=True)]
        return torch.cat([received.flatten() for received in kept])


CurrentRecord = Callable[[], VisionRecord | None]
"""Returns the record of the thread that asks, if it keeps one."""


def watch(
    tower: VisionTower, attention: Sequence[int], states: Sequence[int], current: CurrentRecord, hooks: Hooks
) -> None:
    """Have the tower's features, and attention and output of some blocks, noted."""
    for block in attention:
        tap.install(tower.attentions[block], partial(_tap, current, block))
        hooks.undo_with(partial(tap.remove, tower.attentions[block]))
    for block in states:
        hooks.keep(tower.blocks[block].register_forward_hook(partial(_note_states, current, block)))
    hooks.keep(tower.projector.register_forward_pre_hook(partial(_note_features, current)))


def _tap(current: CurrentRecord, block: int) -> tap.Tap | None:
    record = current()
    return None if record is None else tap.Tap(partial(record.read, block))


def _note_states(current: CurrentRecord, block: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    if (record := current()) is not None:
        record.read_states(block, output)


def _note_features(current: CurrentRecord, projector: nn.Module, args: tuple[Any, ...]) -> None:
    if (record := current()) is not None:
        record.read_features(args[0])


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
