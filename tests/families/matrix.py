"""Parts of the family matrix: prompts, methods with their rules, and expected results."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from tests.families.masked_reference import MaskedReference
from tests.families.zoo import FAMILIES, Sample, shared
from tests.families.zoo.family import IMAGE, VIDEO
from tests.oracle import Schedule, keep_all, st3_schedule
from tests.tiny import generate, logits
from vistrim import PVTP, ST3, VTA, FastV, Method, PyramidDrop, Random, Uniform, compose
from vistrim.engine.releases import CACHE
from vistrim.methods.base.per_image import PerImage

STEPS = 3
ATTENTIONS = ("sdpa", "eager")
each_attention = pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
BATCHES = {"one": 1, "padded": 3}


@cache
def prompts(name: str) -> tuple[Sample, ...]:
    """One image; two, with more text; none."""
    family = FAMILIES[name]
    return family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 5, seed=2)


def visual_rows(sample: Sample) -> list[int]:
    """Where the visual tokens stand."""
    return [i for i, token in enumerate(sample.ids) if token in (IMAGE, VIDEO)]


Choice = Callable[[int, int], Collection[int]]
"""Which tokens of a picture enter the decoder, by its number in the sample and its number of tokens."""


def evenly_spaced(number: int, n: int) -> list[int]:
    """The middle one of each of so many equal stretches, half of the tokens."""
    count = max(1, int(n / 2 + 0.5))
    return [(2 * i + 1) * n // (2 * count) for i in range(count)]


def drawn(number: int, n: int) -> list[int]:
    """The first half of a permutation that depends on the picture's number."""
    generator = torch.Generator().manual_seed(3 * 1_000_003 + number)
    return torch.randperm(n, generator=generator)[: max(1, int(n / 2 + 0.5))].tolist()


def in_stages(n: int, layer: int, step: int) -> int:
    """PyramidDrop, with a cut before every layer but the first."""
    return n if layer == 0 or step else int(n * (0.75, 0.5, 0.2)[layer - 1])


def half_before_layer_2(n: int, layer: int, step: int) -> int:
    """FastV; half a token goes to the even number."""
    return n if layer < 2 or step else round(n * 0.5)


def cut_and_annealed(n: int, layer: int, step: int) -> int:
    """PVTP and VTA, which counts from the tokens that the cuts left."""
    left = ONE_IN_TWO(n, layer, 0)
    return FADING(left, layer, step) if step else left


ONE_IN_TWO = st3_schedule(start=1, stride=2, ratio=0.5)
FADING = st3_schedule(start=9, stride=1, ratio=0.0, decay="linear", horizon=8)


@dataclass(frozen=True)
class Case:
    """A method, and the rule that it follows in the words of the reference.

    Attributes
    ----------
    method : Method
    schedule : callable
        Visual tokens to keep of those that entered, at layer and step.
    choose : callable, optional
        What enters.
    ahead : bool
        Whether cuts are ranked by the layer about to run.
    """

    method: Method
    schedule: Schedule = keep_all
    choose: Choice | None = None
    ahead: bool = False


CASES: dict[str, dict[str, Case]] = {
    "input": {
        "uniform": Case(Uniform(0.5), choose=evenly_spaced),
        "random": Case(Random(0.5, seed=3), choose=drawn),
    },
    "prefill": {
        "pvtp": Case(PVTP(1, 2, 0.5), ONE_IN_TWO),
        "fastv": Case(FastV(2, 0.5), half_before_layer_2),
        "pyramiddrop": Case(PyramidDrop((1, 2, 3), (0.75, 0.5, 0.2), "original"), in_stages, ahead=True),
    },
    "decode": {"vta": Case(VTA("linear", 8, 0.0, interval=1), FADING)},
    "all": {
        "st3": Case(
            ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
            st3_schedule(start=1, stride=1, ratio=0.3, decay="cosine", horizon=7, floor=0.1),
        ),
        "uniform+pvtp+vta": Case(
            compose(Uniform(0.5), PVTP(1, 2, 0.5), VTA("linear", 8, 0.0, interval=1)), cut_and_annealed, evenly_spaced
        ),
    },
}
"""By stage and name."""


@dataclass(frozen=True)
class Untouched:
    """A generation of the stock model.

    Attributes
    ----------
    logits : Tensor
        ``[batch, steps, vocabulary]``.
    column_bytes : tuple of int
        Bytes of one column of each layer's cache, keys and values of the whole batch.
    cache_bytes : int
        Of the whole cache.
    """

    logits: Tensor
    column_bytes: tuple[int, ...]
    cache_bytes: int


@cache
def untouched(name: str, attention: str, batch: str) -> Untouched:
    output = generate(shared(name, attention), FAMILIES[name].batch(prompts(name)[: BATCHES[batch]]), STEPS)
    layers = output[CACHE].layers
    sizes = [layer.keys.nbytes + layer.values.nbytes for layer in layers]
    columns = tuple(size // layer.keys.shape[-2] for size, layer in zip(sizes, layers, strict=True))
    return Untouched(logits(output), columns, sum(sizes))


@dataclass(frozen=True)
class Expected:
    """One sample in the reference.

    Attributes
    ----------
    logits : Tensor
        ``[steps, vocabulary]``.
    kept : tuple of list of int
        For each layer: which of the sample's visual tokens it saw in prefill.
    planned : tuple of int
        For each layer: rows in its cache at the end, as long as no window evicts any.
    held : tuple of list of int
        For each layer: the rows that are really in it.
    """

    logits: Tensor
    kept: tuple[list[int], ...]
    planned: tuple[int, ...]
    held: tuple[list[int], ...]


Pictures = tuple[int, ...]
"""For each visual token of a sample: the number of its picture."""


@cache
def expected(
    name: str, stage: str, case: str, sample: int, answer: tuple[int, ...], pictures: Pictures, padding: int
) -> Expected:
    """Have the reference read a prompt and an answer, whichever attention and batch they come from."""
    prompt = prompts(name)[sample]
    reference = follower(name, CASES[stage][case], pictures, padding)
    steps = [reference.prefill(prompt)]
    number = {row: i for i, row in enumerate(visual_rows(prompt))}
    kept = tuple(sorted(number[row] for row in rows) for rows in reference.cache)
    steps += [reference.decode(token) for token in answer[:-1]]
    return Expected(torch.stack(steps), kept, tuple(reference.kv_lengths()), tuple(reference.held()))


def follower(name: str, case: Case, pictures: Pictures = (), padding: int = 0) -> MaskedReference:
    """A reference for one sample under a case."""
    enters = None if case.choose is None else _by_picture(case.choose, pictures)
    return MaskedReference(FAMILIES[name], shared(name, "eager"), case.schedule, enters, case.ahead, padding)


def has_windows(name: str) -> bool:
    """Whether a layer looks back over a window, or a chunk, only."""
    return any(layer.is_sliding for layer in DynamicCache(config=shared(name).config.get_text_config()).layers)


def padding_that_counts(name: str, samples: Sequence[Sample]) -> list[int]:
    """Padding of each sample of a batch, if it changes the result."""
    longest = max(len(s.ids) for s in samples)
    return [(longest - len(s.ids)) * has_windows(name) for s in samples]


def _by_picture(choose: Choice, pictures: Pictures) -> Callable[[Tensor, Tensor], Collection[int]]:
    def enters(features: Tensor, rows: Tensor) -> list[int]:
        found = []
        for number in sorted(set(pictures)):
            own = [row for row, picture in zip(rows.tolist(), pictures, strict=True) if picture == number]
            found += [own[i] for i in choose(number, len(own))]
        return found

    return enters


@contextmanager
def pictures_noted() -> Iterator[list[Pictures]]:
    """The picture of each visual token as methods get it, for each sample; it is not checked.

    That it is right, the tests of each family's vision tower say.
    """
    noted: list[Pictures] = []
    select = PerImage.select_input

    def noting(method: PerImage, tokens: Any) -> Any:
        numbers = zip(tokens.image_of, tokens.visual, strict=True)
        noted[:] = [tuple(of[visual].tolist()) for of, visual in numbers]
        return select(method, tokens)

    with patch.object(PerImage, "select_input", noting):
        yield noted


def answers(output: Any, inputs: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """Generated tokens of each row."""
    return list(map(tuple, output.sequences[:, inputs["input_ids"].shape[1] :].tolist()))


def held_rows(layer: Any, row: int, padding: int) -> list[int]:
    """Which tokens of a sample a layer's cache holds, by their places in the prompt without padding."""
    tokens = layer.columns()
    return (tokens.slots[row][tokens.valid[row]] - padding).tolist()
