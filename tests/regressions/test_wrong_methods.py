"""A method that answers wrongly is refused with its name and its answer; it never changes a run silently."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from tests import tiny
from vistrim import PVTP, FastV, compose, trim
from vistrim.core.selection import keep_top
from vistrim.errors import MethodError
from vistrim.methods.base.method import Method
from vistrim.methods.base.per_image import ImageChoice, PerImage
from vistrim.methods.base.registry import register

TOKENS = tiny.TOKENS_PER_IMAGE


@dataclass(frozen=True)
class Chooses(PerImage):
    name = "chooses"
    answer: Any = None

    def choose(self, image):
        return self.answer


@dataclass(frozen=True)
class Selects(Method):
    """Selects with a right answer changed by ``spoil``."""

    name = "selects"
    stages = ("input", "prefill", "decode")
    ranks_by = "layer before"
    at: str = "input"
    spoil: Any = field(default=lambda right, tokens: right)

    def answer(self, at, tokens, counts, scores):
        right = keep_top(scores, tokens.visual, counts)
        return self.spoil(right, tokens) if at == self.at else right

    def select_input(self, tokens):
        counts = [sum(images) for images in tokens.images]
        return self.answer("input", tokens, counts, torch.zeros_like(tokens.visual).float())

    def prefill_layers(self, depth):
        return (2,)

    def select_prefill(self, layer, tokens):
        return self.answer("prefill", tokens, [n // 2 for n in tokens.held], tokens.scores)

    def decode_counts(self, layer, step, initial, left, depth):
        return tuple(n // 4 for n in initial)

    def select_decode(self, layer, counts, tokens):
        return self.answer("decode", tokens, counts, tokens.scores)


def run(method, samples=tiny.RAGGED[:2]):
    model = tiny.shared()
    with trim(model, method) as handle:
        output = tiny.generate(model, tiny.batch(samples), 3)
    return output, handle.report


def long(*values):
    return torch.tensor(values)


def merging(*pairs, keep=(0, 3)):
    into = torch.full((TOKENS,), -1)
    for token, target in pairs:
        into[token] = target
    return ImageChoice(long(*keep), into)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (ImageChoice(long(10, 10, 3)), r"\[10, 10, 3\].*distinct indices from 0 to 15"),
        (ImageChoice(long(0, 16)), r"\(keep=a tensor \[2\] of torch.int64 \(\[0, 16\]\)\): .*indices from 0 to 15$"),
        (ImageChoice(long(0, -1)), "distinct indices from 0 to 15"),
        (ImageChoice(torch.arange(99)), r"ImageChoice\(keep=a tensor \[99\] of torch.int64\): keep has to have"),
        (ImageChoice(torch.empty(0, dtype=torch.long)), "at least one token"),
        (ImageChoice(torch.tensor([0.0, 1.0])), "keep has to be a tensor"),
        (ImageChoice(torch.tensor([0, 1], dtype=torch.int32)), "torch.int64"),
        (ImageChoice(torch.ones(TOKENS, dtype=torch.bool)), "torch.int64"),
        (ImageChoice(long(0, 1)[None]), r"keep has to be a tensor \[kept\]"),
        (ImageChoice([0, 1]), "keep has to be a tensor"),
        (long(0, 1), r"a tensor \[2\] of torch.int64 \(\[0, 1\]\): an ImageChoice is expected"),
        (None, "None: an ImageChoice is expected"),
        (merging((1, 2)), "tokens that stay"),
        (merging((1, 16)), "tokens that stay"),
        (merging((1, -2)), "tokens that stay"),
        (merging((3, 0)), "tokens that go"),
        (ImageChoice(long(0), torch.zeros(3, dtype=torch.long)), r"merge_into has to be a tensor \[16\]"),
        (ImageChoice(long(0), torch.zeros(TOKENS)), "torch.int64"),
    ],
)
def test_choices_in_an_image(answer, shown):
    with pytest.raises(MethodError, match=f"(?s)chooses: choose returned .*{shown}"):
        run(Chooses(answer))


def test_the_choice_of_one_image_among_right_ones(monkeypatch):
    def choose(self, image):
        return ImageChoice(long(4, 4) if image.number == 1 else long(2, 1))

    monkeypatch.setattr(Chooses, "choose", choose)
    with pytest.raises(MethodError, match=r"\[4, 4\]"):
        run(Chooses())


def test_the_order_of_a_choice_does_not_matter():
    sorted_, unsorted = run(Chooses(ImageChoice(long(2, 5, 9)))), run(Chooses(ImageChoice(long(9, 2, 5))))
    assert torch.equal(tiny.logits(sorted_[0]), tiny.logits(unsorted[0]))
    assert sorted_[1].stages[0].kept[0] == unsorted[1].stages[0].kept[0] == [2, 5, 9]


def also_first(flags, tokens, name):
    """One more flag in the first sample, where there was none."""
    flags = flags.clone()
    flags[0, int((tokens.visual & ~flags)[0].long().argmax()) if name == "visual" else 0] = True
    return flags


def merged(right, tokens, target):
    into = torch.full(tokens.visual.shape, -1)
    gone = int((tokens.visual & ~right.keep)[1].long().argmax())
    into[1, gone] = {"stays": int((right.keep & tokens.visual)[1].long().argmax()), "text": 0, "itself": gone}.get(
        target, target
    )
    return replace(right, merge_into=into)


EVERYWHERE = {
    "a tensor": (lambda right, tokens: right.keep, "Selection.* is expected"),
    "indices": (lambda right, tokens: replace(right, keep=long(1, 2)), "keep has to be a tensor"),
    "numbers": (lambda right, tokens: replace(right, keep=right.keep.long()), "torch.bool"),
    "a list": (lambda right, tokens: replace(right, keep=right.keep.tolist()), "keep has to be a tensor"),
    "one sample": (lambda right, tokens: replace(right, keep=right.keep[:1]), "keep has to be a tensor"),
    "one count": (lambda right, tokens: replace(right, counts=right.counts[:1]), "counts has to be a tuple of 2"),
    "a count": (lambda right, tokens: replace(right, counts=3), "counts has to be a tuple of 2"),
    "float counts": (lambda right, tokens: replace(right, counts=(1.0, 2.0)), "counts has to be a tuple of 2"),
    "negative": (lambda right, tokens: replace(right, counts=(-1, 2)), "counts has to be a tuple of 2"),
    "too many": (lambda right, tokens: replace(right, counts=(99, 2)), "counts has more than"),
    "none kept": (
        lambda right, tokens: replace(right, keep=torch.zeros_like(right.keep)),
        "not have the numbers of visual tokens in counts",
    ),
}
IN_PREFILL = {
    "more kept": (
        lambda right, tokens: replace(right, keep=also_first(right.keep, tokens, "visual")),
        "not have the numbers of visual tokens in counts",
    ),
    "merge into text": (lambda right, tokens: merged(right, tokens, "text"), "removed visual tokens into kept ones"),
    "merge into itself": (
        lambda right, tokens: merged(right, tokens, "itself"),
        "removed visual tokens into kept ones",
    ),
    "merge beyond": (lambda right, tokens: merged(right, tokens, 999), "rows that do not exist"),
    "float merge": (
        lambda right, tokens: replace(right, merge_into=torch.zeros(tokens.visual.shape)),
        "merge_into has to be a tensor",
    ),
    "text behind": (
        lambda right, tokens: replace(
            right, behind=also_first(torch.zeros_like(right.keep), tokens, "text").long() - 1
        ),
        "behind has tokens",
    ),
    "hidden of another size": (lambda right, tokens: replace(right, hidden=torch.zeros(2, 3, 4)), "hidden has to be"),
}
IN_DECODE = {
    "nothing": (lambda right, tokens: None, "None: a Selection is expected"),
    "other counts": (
        lambda right, tokens: keep_top(tokens.scores, tokens.visual, [n + 1 for n in right.counts]),
        "counts has to be the requested",
    ),
    "merge": (lambda right, tokens: merged(right, tokens, "stays"), "only be kept or removed"),
    "hidden": (lambda right, tokens: replace(right, hidden=torch.zeros(2, 3, 4)), "only be kept or removed"),
}
CASES = [
    *(("input", *case) for name, case in EVERYWHERE.items()),
    *(("prefill", *case) for name, case in (EVERYWHERE | IN_PREFILL).items()),
    *(("decode", *case) for name, case in (EVERYWHERE | IN_DECODE).items()),
]


@pytest.mark.parametrize(("at", "spoil", "shown"), CASES)
def test_selections(at, spoil, shown):
    with pytest.raises(MethodError, match=f"(?s)selects: select_{at} returned .*{shown}"):
        run(Selects(at, spoil))


def test_right_selections_pass():
    _, report = run(Selects())
    assert report.visual_tokens_per_layer[-1] == [n // 2 for n in report.visual_tokens]
    _, report = run(Selects("prefill", lambda right, tokens: merged(right, tokens, "stays")))
    assert [len(sample) for sample in report.stages[-1].merged] == [0, 1]


@pytest.mark.parametrize(
    ("hook", "answer", "shown"),
    [
        ("prefill_layers", (0, 2), "layers from 1 to 4"),
        ("prefill_layers", (2, tiny.DEPTH), "layers from 1 to 4"),
        ("prefill_layers", (2, 2), "distinct layers"),
        ("prefill_layers", 2, "a tuple of distinct layers"),
        ("prefill_layers", long(1, 2), "a tuple of distinct layers"),
        ("prefill_layers", (1.5,), "a tuple of distinct layers"),
        ("fitted", None, "a Method is expected"),
        ("structure", [], "a LayerStructure for each of the 5 layers"),
        ("score", torch.zeros(1, 3), "scores are a float tensor"),
        ("score", torch.zeros(2, 48, dtype=torch.long), "scores are a float tensor"),
        ("score", [0.0], "scores are a float tensor"),
        ("query_rows", torch.ones(2, 48), "a bool tensor"),
        ("query_rows", torch.ones(2, 48, dtype=torch.bool), "only text of the prompt"),
        ("decode_counts", (1,), "a tuple of 2 numbers of tokens"),
        ("decode_counts", (1, -1), "a tuple of 2 numbers of tokens"),
        ("decode_counts", long(1, 1), "a tuple of 2 numbers of tokens"),
    ],
)
def test_other_answers(monkeypatch, hook, answer, shown):
    monkeypatch.setattr(Selects, hook, lambda self, *_: answer)
    with pytest.raises(MethodError, match=f"(?s)selects: {hook} returned .*{shown}"):
        run(Selects())


def test_the_guilty_part_of_a_composition_is_named():
    with pytest.raises(MethodError, match="chooses: choose returned"):
        run(compose(Chooses(ImageChoice(long(1, 1))), PVTP()))


def test_the_model_works_on_after_a_wrong_answer():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED[:2])
    with trim(model, FastV(1, 0.5)):
        expected = tiny.generate(model, inputs, 3)
    with pytest.raises(MethodError):
        run(Chooses(ImageChoice(long(1, 1))))
    with trim(model, FastV(1, 0.5)):
        assert torch.equal(tiny.logits(tiny.generate(model, inputs, 3)), tiny.logits(expected))


@dataclass(frozen=True)
class Nameless(Method):
    name = ""
    stages = ("prefill",)


@dataclass(frozen=True)
class Stageless(Method):
    name = "stageless"
    stages = None


@dataclass(frozen=True)
class Elsewhere(Method):
    name = "elsewhere"
    stages = ("before",)


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (Nameless(), "the method Nameless has no `name`"),
        (Stageless(), r"the method stageless \(Stageless\) has stages=None"),
        (Elsewhere(), r"has stages=\('before',\).*input, structure, prefill, decode"),
    ],
)
def test_methods_without_a_name(method, shown):
    with pytest.raises(MethodError, match=shown):
        trim(tiny.shared(), method)


@dataclass(frozen=True)
class Idle(Method):
    """Overrides nothing."""


@dataclass(frozen=True)
class Demanding(Selects):
    name = "demanding"
    at: str = field()


class Undecorated(Selects):
    keep: float = 0.5


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        (Nameless, "has name='': use letters"),
        (Idle, "has no `stages`: override a hook"),
        (Demanding, "has no default for at"),
        (Undecorated, "put @dataclass"),
    ],
)
def test_such_methods_cannot_be_registered(method, shown):
    with pytest.raises(MethodError, match=shown):
        register(method)
