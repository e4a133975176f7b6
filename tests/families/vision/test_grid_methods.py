"""Methods that read such a tower keep, of each picture, the tokens that their rules say, and nothing else enters."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from torch import Tensor

from tests.closeness import close
from tests.covering import covering
from tests.families.masked_reference import MaskedReference
from tests.families.test_masked_reference import follow
from tests.families.vision.eager_towers import Observed, Place, observe
from tests.families.vision.known_towers import HANDS
from tests.families.vision.setting_variants import family, model
from tests.families.vision.test_grid_towers import samples, some_in_every_run
from tests.methods import training_free_rules
from tests.tiny import generate, logits
from vistrim import VTCCLS, FasterVLM, Pool, Uniform, VisPruner, trim
from vistrim.methods.base.method import Method

STEPS = 2
ORIGINAL = {"positions": "original"}


@dataclass
class Picture:
    """What a rule knows of a picture: scores and features of its tokens, NaN for newlines."""

    place: Place
    scores: list[Tensor]
    features: Tensor

    @property
    def n(self) -> int:
        return len(self.place.rows)

    @property
    def patches(self) -> list[int]:
        return [i for i in range(self.n) if self.scores[0][i].isfinite()]

    @property
    def newlines(self) -> list[int]:
        return [i for i in range(self.n) if not self.scores[0][i].isfinite()]


Rule = Callable[[Picture], list[int]]


def best(keep: float, first_block: int | None = None) -> Rule:
    """Patches with the best scores, and then newlines; of the deepest block, or summed from a block on."""

    def rule(picture: Picture) -> list[int]:
        scores = sum(picture.scores[slice(-1 if first_block is None else first_block, None)])
        patches = picture.patches
        ranked = [patches[i] for i in training_free_rules.top(scores[patches], len(patches))]
        return (ranked + picture.newlines)[: training_free_rules.budget(keep, picture.n)]

    return rule


def diverse(keep: float, ratio: float) -> Rule:
    def rule(picture: Picture) -> list[int]:
        patches, kept = picture.patches, training_free_rules.budget(keep, picture.n)
        if kept >= len(patches):
            return (patches + picture.newlines)[:kept]
        # The rule's own picture, of patches alone.
        seen = SimpleNamespace(
            n=len(patches),
            block=0,
            features=[picture.features[patches]],
            attention=lambda image, block: picture.scores[-1][patches],
        )
        return [patches[i] for i in training_free_rules.VisPruner(kept, ratio).choose(seen, 0)]

    return rule


def spaced(keep: float) -> Rule:
    def rule(picture: Picture) -> list[int]:
        kept = training_free_rules.budget(keep, picture.n)
        return [int((i + 0.5) * picture.n / kept) for i in range(kept)]

    return rule


def centres(keep: float) -> Rule:
    """The middle of each cell, to the upper left; as many cells as there may be, shaped most like the picture."""

    def rule(picture: Picture) -> list[int]:
        rows, columns = picture.place.grid
        kept = training_free_rules.budget(keep, picture.n)
        shapes = [s for s in itertools.product(range(1, rows + 1), range(1, columns + 1)) if s[0] * s[1] <= kept]
        shape = max(shapes, key=lambda s: (s[0] * s[1], -abs(s[0] / s[1] - rows / columns)))
        middle = []
        for length, cells in zip((rows, columns), shape, strict=True):
            of_cell = [[i for i in range(length) if i * cells // length == cell] for cell in range(cells)]
            middle.append([(line[0] + line[-1]) // 2 for line in of_cell])
        return [row * columns + column for row, column in itertools.product(*middle)]

    return rule


METHODS: dict[str, tuple[Method, Rule]] = {
    "fastervlm-share": (FasterVLM(0.5, **ORIGINAL), best(0.5)),
    "fastervlm-number": (FasterVLM(3, **ORIGINAL), best(3)),
    "fastervlm-most": (FasterVLM(0.85, **ORIGINAL), best(0.85)),
    "vtc-cls": (VTCCLS(0.4, first_layer=0, **ORIGINAL), best(0.4, 0)),
    "vispruner": (VisPruner(0.6, 0.5, **ORIGINAL), diverse(0.6, 0.5)),
    "uniform": (Uniform(0.3), spaced(0.3)),
    "pool": (Pool(0.3), centres(0.3)),
}


def kept_rows(seen: Observed, pictures: list[Place], rule: Rule) -> list[int]:
    """Rows of a prompt that the rule keeps."""
    kept = []
    for place in pictures:
        if place.rows:
            blocks = [scores[place.tokens] for scores in seen.received[place.modality][: seen.hand.block + 1]]
            picture = Picture(place, blocks, seen.features[place.modality][place.tokens])
            kept += [place.rows[i] for i in rule(picture)]
    return sorted(kept)


def check(name: str, plan: str, attention: str, compare_logits: bool) -> None:
    of, (method, rule) = family(name), METHODS[plan]
    prompts = samples(name)
    inputs = of.batch(prompts)
    seen = observe(HANDS[name], model(name, "eager"), inputs)
    everywhere = seen.batch(inputs["input_ids"].tolist())
    if plan == "pool" and any(place.rows and place.grid is None for pictures in everywhere for place in pictures):
        with trim(model(name, attention), method), pytest.raises(ValueError, match="uniform or random"):
            generate(model(name, attention), inputs, 1)
        return
    with trim(model(name, attention), method) as run:
        output = generate(model(name, attention), inputs, STEPS)
    assert logits(output).isfinite().all()
    width = inputs["input_ids"].shape[1]
    for b, (prompt, pictures) in enumerate(zip(prompts, everywhere, strict=True)):
        kept, visual = kept_rows(seen, pictures, rule), sorted(row for place in pictures for row in place.rows)
        assert [visual[i] for i in run.report.stages[0].kept[b]] == kept
        assert run.report.visual_tokens_per_layer[0][b] == len(kept)
        if compare_logits:
            rows = {row - width + len(prompt.ids) for row in kept}
            reference = MaskedReference(of, model(name, "eager"), enters=lambda features, places, rows=rows: rows)
            expected = follow(reference, output.sequences[b, width:].tolist(), prompt)
            assert close(logits(output)[b], expected)
            if all(reference.window(layer) is None for layer in range(len(reference.layers))):
                assert [n[b] for n in run.report.kv_tokens_per_layer] == reference.kv_lengths()


@covering(1)
@some_in_every_run
@pytest.mark.parametrize("plan", METHODS)
def test_each_picture_keeps_what_the_rule_says(name, plan):
    check(name, plan, "sdpa", compare_logits=False)


@covering(1)
@some_in_every_run
@pytest.mark.parametrize(("plan", "attention"), [("vispruner", "sdpa"), ("vtc-cls", "eager")])
def test_logits_equal_the_reference(name, plan, attention):
    check(name, plan, attention, compare_logits=True)
