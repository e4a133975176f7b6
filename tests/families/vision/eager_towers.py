"""Outputs of a stock model's vision tower for a batch, from transformers' own eager attention."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests.families.vision.known_towers import Hand
from tests.families.vision.patch_maps import Grid, Shown
from tests.families.zoo.family import IMAGE, VIDEO

PLACEHOLDERS = {"image": IMAGE, "video": VIDEO}
PLAIN = ("CLIPAttention", "SiglipAttention")


def attentions(tower: nn.Module) -> list[nn.Module]:
    """The attention module of each block."""
    found = [module for module in tower.modules() if type(module).__name__.endswith(("VisionAttention", *PLAIN))]
    assert len(found) == tower.config.num_hidden_layers
    return found


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The blocks themselves."""
    names = dict(tower.named_modules())
    inner = {module: name for name, module in names.items()}
    return [names[inner[module].rpartition(".")[0]] for module in attentions(tower)]


def call(model: Any, inputs: Mapping[str, Any], modality: str) -> Any:
    """Encode the images or videos of a batch."""
    encode = getattr(model.base_model, f"get_{modality}_features")
    known = inspect.signature(encode).parameters
    pixels = "pixel_values" if modality == "image" else "pixel_values_videos"
    given = {name: value for name, value in inputs.items() if name in known and name != "attention_mask"}
    return encode(**given, return_dict=True) if pixels in inputs else None


def features_of(output: Any) -> Tensor:
    """All visual tokens of an encoding, ``[tokens, hidden]``."""
    entries = output.pooler_output
    return torch.cat([entry.reshape(-1, entry.shape[-1]) for entry in entries])


@dataclass
class Place:
    """A picture of a prompt.

    Attributes
    ----------
    rows : list of int
        Its tokens in the prompt.
    modality : str
        "image" or "video".
    tokens : list of int
        Its tokens among all of its modality in the batch.
    grid : tuple of int or None
        Rows and columns.
    """

    modality: str
    grid: Grid | None
    rows: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


@dataclass
class Observed:
    """A batch.

    Attributes
    ----------
    received : dict
        For each modality and block, ``[visual tokens]``: attention received.
    states : dict
        The same for the block's output, ``[visual tokens, width]``.
    features : dict
        For each modality, ``[visual tokens, width]``: the tower's output.
    """

    hand: Hand
    shown: dict[str, list[Shown]]
    received: dict[str, list[Tensor]] = field(default_factory=dict)
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)

    def places(self, ids: list[int], used: dict[str, int]) -> list[Place]:
        """The pictures of the next prompt: those of its images and then those of its videos."""
        found = []
        for modality, placeholder in PLACEHOLDERS.items():
            rows = [i for i, token in enumerate(ids) if token == placeholder]
            while rows:
                images = self.shown[modality]
                before = [image.counts for image in images[: used[modality]]]
                token = sum(map(sum, before))
                image = images[used[modality]]
                pictures = [Place(modality, grid) for grid in image.grids]
                for n, owner in enumerate(image.owner):
                    pictures[owner].rows.append(rows[n])
                    pictures[owner].tokens.append(token + n)
                found += pictures
                rows = rows[len(image.owner) :]
                used[modality] += 1
        return found

    def batch(self, all_ids: list[list[int]]) -> list[list[Place]]:
        """The pictures of each prompt of the batch."""
        used = dict.fromkeys(PLACEHOLDERS, 0)
        return [self.places(ids, used) for ids in all_ids]


@torch.no_grad()
def observe(hand: Hand, model: Any, inputs: Mapping[str, Tensor]) -> Observed:
    """Watch a stock model with eager attention."""
    seen = Observed(hand, hand.shown(inputs))
    for modality, name in zip(PLACEHOLDERS, hand.towers, strict=True):
        if not seen.shown.get(modality):
            continue
        tower = getattr(model.base_model, name)
        weights, outputs, last = _watched(tower, lambda modality=modality: call(model, inputs, modality))
        rows = [w.mean(1)[:, 0] if hand.has_cls else w.mean((1, 2)) for w in weights]
        seen.received[modality] = [_arranged(seen.shown[modality], values) for values in rows]
        seen.states[modality] = [_arranged(seen.shown[modality], values) for values in outputs]
        features = last if hand.last else outputs[hand.block]
        seen.features[modality] = _arranged(seen.shown[modality], features)
    return seen


def _watched(tower: nn.Module, run: Callable[[], Any]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Attention and output of each block, and the last hidden state."""
    weights, outputs, last, handles = [], [], [], []
    for attention in attentions(tower):
        handles.append(attention.register_forward_hook(lambda m, a, out: weights.append(out[1].float())))
    for block in blocks(tower):
        handles.append(block.register_forward_hook(lambda m, a, out: outputs.append(out)))
    # What Ovis calls its last hidden state is behind the merging.
    inner = getattr(tower, "transformer", tower)
    handles.append(inner.register_forward_hook(lambda m, a, out: last.append(out.last_hidden_state)))
    run()
    for handle in handles:
        handle.remove()
    (states,) = last
    return weights, outputs, states


def _arranged(shown: list[Shown], values: Tensor) -> Tensor:
    """Visual tokens of the tower's values ``[pictures, tokens, ...]``."""
    flat, made = values.flatten(0, 1), []
    for image in shown:
        n = image.weights.shape[1]
        made.append(image.of(flat[:n]))
        flat = flat[n:]
    assert not len(flat)
    return torch.cat(made)
