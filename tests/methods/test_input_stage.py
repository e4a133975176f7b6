"""Methods before the decoder equal an independent computation in which the removed tokens never existed."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_against_oracle import follow
from tests.oracle import Oracle
from vistrim import Pool, Random, Uniform, trim

N = tiny.TOKENS_PER_IMAGE


def uniform(k):
    def enters(embeddings, visual):
        images = visual.view(-1, N)
        return embeddings, {int(row[int((i + 0.5) * N / k)]) for row in images for i in range(k)}

    return enters


def pool(side):
    """Mean over squares of a 4 x 4 grid; the square's token nearest its center, up and to the left, stands for it."""

    def enters(embeddings, visual):
        embeddings, kept, cell = embeddings.clone(), set(), 4 // side
        for image in visual.view(-1, 4, 4):
            for r in range(0, 4, cell):
                for c in range(0, 4, cell):
                    members = image[r : r + cell, c : c + cell].flatten()
                    stands = int(image[r + (cell - 1) // 2, c + (cell - 1) // 2])
                    embeddings[stands] = embeddings[members].mean(0)
                    kept.add(stands)
        return embeddings, kept

    return enters


@covering(1)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("samples", [[tiny.sample(2, 9)], tiny.RAGGED, tiny.SAME_LENGTH], ids=["one", "ragged", "same"])
@pytest.mark.parametrize(
    ("method", "enters"),
    [(Uniform(0.25), uniform(4)), (Uniform(5), uniform(5)), (Pool(4), pool(2)), (Pool(0.07), pool(1))],
)
def test_equals_the_reference(method, enters, samples, attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, 3)
    for b, sample in enumerate(samples):
        oracle = Oracle(tiny.shared("llama", "eager"), enters=enters)
        answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
        expected = follow(oracle, sample, answer)
        assert close(tiny.logits(output)[b], expected)
        assert [n[b] for n in run.report.kv_tokens_per_layer] == oracle.kv_lengths()


def test_image_that_is_partly_masked():
    """Tokens hidden by the padding mask are no visual tokens, and each image gets its budget of the rest."""
    model, sample = tiny.shared(), tiny.sample(3, 9)
    inputs = tiny.batch([sample, tiny.sample(1, 9)])
    first = (inputs["input_ids"][0] == tiny.IMAGE).nonzero()[0, 0]
    inputs["attention_mask"][0, first : first + 6] = 0
    with trim(model, Uniform(0.5)) as run:
        tiny.generate(model, inputs, 2)
    assert run.report.visual_tokens == [3 * N - 6, N]
    assert run.report.visual_tokens_per_layer[0] == [(N - 6) // 2 + N, N // 2]


def test_random_is_the_same_in_any_batch():
    model, method = tiny.shared(), Random(0.5, seed=3)
    with trim(model, method) as run:
        together = tiny.generate(model, tiny.batch(tiny.RAGGED), 3)
        alone = [tiny.generate(model, tiny.batch([s]), 3) for s in tiny.RAGGED]
    for b, one in enumerate(alone):
        assert close(tiny.logits(together)[b], tiny.logits(one)[0])
        assert run.reports[0].stages[0].kept[b] == run.reports[1 + b].stages[0].kept[0]


def test_images_without_a_grid_are_refused_by_pool():
    """With the class token among them, an image's tokens form no grid."""
    config = tiny.config()
    config.vision_feature_select_strategy = "full"
    import transformers

    model = transformers.LlavaForConditionalGeneration(config).eval()
    ids = [1, *[tiny.IMAGE] * (N + 1), 5, 6]
    inputs = tiny.batch([tiny.Sample(ids, torch.randn(1, 3, 16, 16))])
    with trim(model, Uniform(4)) as run:
        tiny.generate(model, inputs, 2)
    assert run.report.visual_tokens_per_layer[0] == [4]
    with trim(model, Pool(4)), pytest.raises(ValueError, match="uniform or random"):
        tiny.generate(model, inputs, 2)
