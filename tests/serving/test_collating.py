"""Prompts made one by one, as a batch."""

import torch

from tests.serving.running import conversation, engine, loaded
from vistrim.engine import describe
from vistrim.serving.collating import collate, names_per_sample
from vistrim.serving.preparing import Preparer

IMAGE = 9


def sample(ids, **more):
    ids = torch.tensor([ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


def test_values_of_tokens_are_padded_on_the_left_with_a_token_of_the_prompt():
    batch = collate([sample([IMAGE, 3, 4]), sample([5, IMAGE, 6, 7, 8])], {IMAGE})
    assert batch["input_ids"].tolist() == [[3, 3, IMAGE, 3, 4], [5, IMAGE, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1] * 5]
    # Not every prompt has them.
    batch = collate([sample([1, 2], token_type_ids=torch.tensor([[0, 1]])), sample([3])], {IMAGE})
    assert batch["token_type_ids"].tolist() == [[0, 1], [0, 0]]


def test_images_are_joined_and_smaller_ones_filled_up():
    two, one, none = torch.ones(2, 3, 4, 4), torch.full((1, 3, 2, 4), 2.0), sample([1])
    batch = collate([sample([IMAGE, 1], pixels=two), none, sample([IMAGE, 2], pixels=one)], {IMAGE})
    assert torch.equal(batch["pixels"][:2], two)
    assert torch.equal(batch["pixels"][2:, :, :2], one)
    assert not batch["pixels"][2, :, 2:].any()


def test_inputs_with_one_row_per_prompt_get_a_row_for_prompts_without_images():
    nested = sample([IMAGE, IMAGE, 1], pixels=torch.ones(1, 2, 3, 4, 4))
    assert names_per_sample(nested) == {"pixels"}
    batch = collate([nested, sample([1]), sample([IMAGE, 2], pixels=torch.ones(1, 1, 3, 4, 4))], {IMAGE}, {"pixels"})
    assert batch["pixels"].shape == (3, 2, 3, 4, 4)
    assert batch["pixels"].flatten(2).any(2).tolist() == [[True, True], [False, False], [True, False]]


def test_a_processor_whose_batches_differ_is_used_for_one_prompt_at_a_time():
    model, processor = loaded()

    class Scales:
        """Scales images by the number of prompts."""

        def __getattr__(self, name):
            return getattr(processor, name)

        def apply_chat_template(self, turns, **settings):
            found = processor.apply_chat_template(turns, **settings)
            if "pixel_values" in found:
                found["pixel_values"] *= len(turns)
            return found

    spec = describe(model)
    assert Preparer(processor, spec).can_batch
    assert not Preparer(Scales(), spec).can_batch


def test_an_engine_prepares_what_its_processor_prepares():
    with engine() as made:
        asked = conversation("describe the image .", 1, 2)
        inputs = made.preparer.prepare(asked)
    same = loaded()[1].apply_chat_template(
        conversation("describe the image .", 1, 2).turns,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs.keys() == same.keys()
    assert all(torch.equal(inputs[name], same[name]) for name in inputs)
