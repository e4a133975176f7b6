"""transformers.pipeline over a model that is being trimmed, with the reference model and its own processor."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import vistrim
from vistrim import ST3, FastV, trim

SETTINGS = {"max_new_tokens": 5, "do_sample": False}


@pytest.fixture(scope="module")
def loaded():
    return vistrim.load("reference", device="cpu")


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (120, 90, 3), dtype=np.uint8)) for _ in range(2)]


@pytest.fixture
def pipe(loaded):
    model, processor = loaded
    return transformers.pipeline("image-text-to-text", model=model, processor=processor)


def answers(loaded, conversations):
    """The same, one by one, by hand."""
    model, processor = loaded
    found = []
    for conversation in conversations:
        inputs = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            output = model.generate(**inputs, **SETTINGS)
        found.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


def conversations(pictures):
    questions = ("What is this?", "Where is the red square, and what is left of it?")
    return [
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
        for picture, question in zip(pictures, questions, strict=True)
    ]


@pytest.mark.parametrize("method", [ST3(), FastV(1, 0.1)], ids=["st3", "fastv"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_it_equals_the_trimmed_model(method, batch_size, loaded, pictures, pipe):
    model, _ = loaded
    asked = conversations(pictures)
    with trim(model, method):
        expected = answers(loaded, asked)
    with trim(model, method) as run:
        output = pipe(text=asked, batch_size=batch_size, generate_kwargs=SETTINGS, return_full_text=False)
    assert [found[0]["generated_text"].strip() for found in output] == [text.strip() for text in expected]
    assert len(run.reports) == 2 // batch_size
    assert all(report.kv_bytes < report.kv_bytes_full for report in run.reports)


def test_a_pipeline_made_inside(loaded, pictures):
    model, processor = loaded
    asked = conversations(pictures)[:1]
    with trim(model, FastV(1, 0.1)) as run:
        expected = answers(loaded, asked)
        inside = transformers.pipeline("image-text-to-text", model=model, processor=processor)
        output = inside(text=asked[0], generate_kwargs=SETTINGS, return_full_text=False)
    assert output[0]["generated_text"].strip() == expected[0].strip()
    assert len(run.reports) == 2
