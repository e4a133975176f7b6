"""Towers that see each picture on one grid of patches: what becomes of a patch, and which scores methods get to see."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from tests.closeness import close
from tests.covering import covering
from tests.families.depth import WHOLE, slow_beside
from tests.families.vision.eager_towers import PLACEHOLDERS, blocks, call, features_of, observe
from tests.families.vision.known_towers import HANDS
from tests.families.vision.setting_variants import family, model
from tests.families.zoo import Sample
from tests.tiny import generate
from vistrim import trim
from vistrim.architectures.families import images_of
from vistrim.core.selection import Selection
from vistrim.engine.inputs.encodings import feature_lengths
from vistrim.methods.base.method import Method
from vistrim.methods.base.stage_inputs import InputTokens

every_family = pytest.mark.parametrize("name", HANDS)
some_in_every_run = pytest.mark.parametrize("name", slow_beside(WHOLE, HANDS))


def samples(name: str) -> list[Sample]:
    """Images of several sizes, several of them, none at all, and videos, alone and between images."""
    of = family(name)
    found = [of.sample(1, 9), of.sample(2, 14, seed=1), of.sample(0, 20, seed=2), of.sample(1, 6, seed=5)]
    if of.has_video:
        found += [of.sample(0, 5, seed=3, videos=1), of.sample(2, 7, seed=4, videos=2)]
    return found


def encoded(name: str, inputs):
    """Each modality of a batch with its stock output and the arguments of the call."""
    for modality in PLACEHOLDERS:
        output = call(model(name, "eager"), inputs, modality) if HANDS[name].shown(inputs).get(modality) else None
        if output is not None:
            yield modality, output, dict(inputs)


@every_family
def test_tokens_lie_as_seen_by_eye(name):
    inputs = family(name).batch(samples(name))
    for modality, output, arguments in encoded(name, inputs):
        lengths = feature_lengths(output)
        found = images_of(model(name)).shapes(modality, arguments, lengths)
        expected = HANDS[name].shown(inputs)[modality]
        assert [image.tokens for image in found] == lengths
        assert sum(lengths) == (inputs["input_ids"] == PLACEHOLDERS[modality]).sum()
        pictures = [picture for image in found for picture in image.pictures]
        assert [p.tokens for p in pictures] == [n for image in expected for n in image.counts]
        assert [p.grid for p in pictures] == [grid for image in expected for grid in image.grids]
        for image, shown in zip(found, expected, strict=False):
            if image.picture_of is not None:
                assert image.picture_of.tolist() == list(shown.owner)


@some_in_every_run
def test_each_visual_token_is_made_of_the_patches_that_it_depends_on(name):
    """Found by the derivatives of the stock model's features, in a change to each of the tower's tokens."""
    hand, inputs = HANDS[name], family(name).batch(samples(name))
    stock = model(name, "eager")
    for modality, _, arguments in encoded(name, inputs):
        tower = getattr(stock.base_model, hand.towers[modality == "video"])
        change = []

        def add(module, args, output, change=change):
            change.append(torch.zeros_like(output, requires_grad=True))
            return output + change[0]

        handle = blocks(tower)[hand.block].register_forward_hook(add, prepend=True)
        made = features_of(call(stock, inputs, modality))
        handle.remove()
        pictures, tokens, _ = change[0].shape
        direction = torch.randn(made.shape[1], generator=torch.Generator().manual_seed(0))
        depends = []
        for feature in made @ direction:
            slope = torch.autograd.grad(feature, change[0], retain_graph=True, allow_unused=True)[0]
            depends.append(torch.zeros(pictures * tokens) if slope is None else slope.abs().sum(-1).flatten())
        ones = torch.eye(pictures * tokens).unflatten(0, (pictures, tokens))
        arranged = images_of(stock).tower.arrange([ones], modality, arguments)
        depends = torch.stack(depends) > 0
        assert torch.equal(arranged.nan_to_num() > 0, depends)
        assert torch.equal(arranged.isnan().all(1), ~depends.any(1))
        assert torch.equal(arranged.isnan().any(1), ~depends.any(1))
        shares = arranged[depends.any(1)].sum(1)
        assert close(shares, torch.ones_like(shares))
        # The same for values without a width.
        scores = torch.rand(pictures, tokens)
        expected = arranged @ scores.flatten()
        found = images_of(stock).tower.arrange([scores], modality, arguments)
        assert close(found, expected)


@dataclass(frozen=True)
class Spy(Method):
    """Keeps everything, and what it was shown."""

    name = "spy"
    stages = ("input",)
    reads_vision = True
    saw: ClassVar[list[InputTokens]] = []

    def vision_blocks(self, feature_block: int) -> tuple[int, ...]:
        return tuple(range(feature_block + 1))

    def vision_states(self, feature_block: int) -> tuple[int, ...]:
        return tuple(range(feature_block + 1))

    def select_input(self, tokens: InputTokens) -> Selection | None:
        self.saw.append(tokens)
        return None


@covering(1)
@some_in_every_run
@pytest.mark.parametrize(("attention", "beams"), [("sdpa", 1), ("eager", 1), ("sdpa", 3)])
def test_methods_see_what_the_tower_computed(name, attention, beams):
    hand, inputs = HANDS[name], family(name).batch(samples(name))
    seen = observe(hand, model(name, "eager"), inputs)
    Spy.saw.clear()
    with trim(model(name, attention), Spy()):
        generate(model(name, attention), inputs, 1, num_beams=beams)
    (tokens,) = Spy.saw
    expected = [pictures for pictures in seen.batch(inputs["input_ids"].tolist()) for _ in range(beams)]
    assert sorted(tokens.vision.attention) == list(range(hand.block + 1))
    for b, pictures in enumerate(expected):
        assert tokens.images[b] == tuple(len(place.rows) for place in pictures)
        assert tokens.grids[b] == tuple(place.grid for place in pictures)
        for number, place in enumerate(pictures):
            assert (tokens.image_of[b] == number).nonzero()[:, 0].tolist() == place.rows
            source = tokens.vision.source[b, place.rows]

            def same(got, expected, source=source, place=place):
                return close(got[source], expected[place.tokens])

            for block in range(hand.block + 1):
                assert same(tokens.vision.attention[block], seen.received[place.modality][block])
                assert same(tokens.vision.states[block], seen.states[place.modality][block])
            assert same(tokens.vision.features, seen.features[place.modality])
