"""Further turns for the stock model's `generate`, on the cache that it has returned."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.families.zoo import Family, Sample
from tests.tiny import follow_up


def next_turn(
    family: Family, model: Any, inputs: dict[str, Tensor], output: Any, before: Sequence[Sample], new: Sequence[Sample]
) -> dict[str, Any]:
    """Inputs that go on with a conversation.

    Parameters
    ----------
    inputs, output
        What the turn before was given and has returned, a ``Sample`` of ``before`` per row (all its media so far).
    new : sequence of Sample
        What is added to each row, all of the same length, with media or without.
    """
    turn = follow_up(output, inputs, torch.tensor([sample.ids for sample in new]))
    if family.derive is not None:
        turn |= family.derive(turn["input_ids"])
    media = family.collate([sample.media for sample in new]) if any(sample.media for sample in new) else {}
    grids = {name: media[name] for name in ("image_grid_thw", "video_grid_thw") if name in media}
    if not grids:
        return turn | media
    # For places in time, height and width transformers needs the sizes of all images, but features of the new ones.
    encoded = {}
    for modality in {name.split("_")[0] for name in grids}:
        encode = getattr(model.base_model, f"get_{modality}_features")
        wanted = inspect.signature(encode).parameters.keys() & media.keys()
        encoded[modality] = encode(**{name: media[name] for name in wanted}, return_dict=True)
    if hasattr(model.base_model, "rope_deltas"):
        # Some models go on from the offset of the turn before even where new images follow.
        model.base_model.rope_deltas = None
    everything = [family.joined([a, b]).media for a, b in zip(before, new, strict=True)]
    rest = {name: value for name, value in family.collate(everything).items() if not name.startswith("pixel_values")}
    return turn | rest | {"mm_encoder_outputs": encoded}
