"""Prompts that were prepared one by one, as a batch with padding on the left."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

Sample = Mapping[str, Tensor]


def collate(
    samples: Sequence[Sample], placeholders: Collection[int], per_sample: Collection[str] = ()
) -> dict[str, Tensor]:
    """Put prompts into a batch, as the processor does if it prepares all of them at once.

    Parameters
    ----------
    samples : sequence of mapping
        Inputs of ``generate`` for one prompt each.
    placeholders : collection of int
        Ids of visual tokens.
    per_sample : collection of str
        Names of inputs whose first dimension counts prompts (``[1, images, ...]``) instead of images.

    Returns
    -------
    dict of str to Tensor
        Inputs with one value per token are padded on the left, and the others are concatenated. Where images differ in
        size, the smaller ones get zeros at the end.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    batch = {}
    for name in names:
        if all(_is_per_token(sample, name) for sample in samples if name in sample):
            batch[name] = _pad_left(name, samples, placeholders)
        else:
            batch[name] = _join([sample.get(name) for sample in samples], name in per_sample)
    return batch


def names_per_sample(sample: Sample) -> frozenset[str]:
    """Find the inputs that have one row per prompt, in a prompt with several images."""
    return frozenset(name for name, value in sample.items() if value.shape[0] == 1 and not _is_per_token(sample, name))


def _is_per_token(sample: Sample, name: str) -> bool:
    return sample[name].shape == sample["input_ids"].shape


def _pad_left(name: str, samples: Sequence[Sample], placeholders: Collection[int]) -> Tensor:
    length = max(sample["input_ids"].shape[1] for sample in samples)
    rows = []
    for sample in samples:
        row = sample.get(name, torch.zeros_like(sample["input_ids"]))
        fill = _harmless_token(row, placeholders) if name == "input_ids" else 0
        rows.append(pad(row, (length - row.shape[1], 0), value=fill))
    return torch.cat(rows)


def _harmless_token(row: Tensor, placeholders: Collection[int]) -> int:
    """Return a token of the prompt itself.

    Some checkpoints penalize tokens that have occurred. With the padding token, which may also be the end token, the
    answer would depend on the length of other prompts.
    """
    return next(token for token in row[0].tolist() if token not in placeholders)


def _join(parts: Sequence[Tensor | None], per_sample: bool) -> Tensor:
    found = [part for part in parts if part is not None]
    largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in found), strict=True)]
    nothing = found[0].new_zeros((1, *largest))
    filled = [
        _pad_right(part, largest) if part is not None else nothing for part in parts if per_sample or part is not None
    ]
    return torch.cat(filled)


def _pad_right(part: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [new - old for new, old in zip(sizes, part.shape[1:], strict=True)]
    return pad(part, [n for size in reversed(missing) for n in (0, size)]) if any(missing) else part
