"""Steps in Python: trimmed outputs on the inputs of a real processor, compared with the stock model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.closeness import close
from tests.engine.test_keep_everything import KeepEverything
from tests.families.zoo.family import IMAGE, VIDEO
from tests.processors.place import SIZES, Place, draw
from tests.tiny import follow_up, generate, logits
from vistrim import FastV, trim
from vistrim.prompting import format_prompts

STEPS = 3
METHOD = FastV(2, 0.5)
QUESTIONS = ("What is this?", "What can be seen in them?", "Why?")


class StockModelError(Exception):
    """transformers itself fails here, without any trimming; the message is its own."""


def untouched(place: Place) -> None:
    """A method that keeps everything changes no bit at any image size, and counts are the processor's."""
    for size in SIZES.values():
        _unchanged(place, _inputs(place, [[draw(size)]]))


def untouched_two(place: Place) -> None:
    """The same with two images of different sizes."""
    _unchanged(place, _inputs(place, [[draw(SIZES["square"]), draw(SIZES["wide"])]]))


def batch(place: Place) -> None:
    """A padded batch equals its samples: one image, two of different sizes, and none."""
    shown = [[draw(SIZES["wide"])], [draw(SIZES["square"]), draw((90, 60), "L").convert("RGB")], []]
    together = _inputs(place, shown, QUESTIONS)
    alone = [_inputs(place, [images], [question]) for images, question in zip(shown, QUESTIONS, strict=True)]
    model, _ = place.loaded
    stock = [_stock(model, inputs) for inputs in [together, *alone]]
    for row, sample in enumerate(stock[1:]):
        if not close(logits(stock[0])[row, 0], logits(sample)[0, 0]):
            raise StockModelError(f"sample {row + 1} of a batch is not what it is alone")
    _unchanged(place, together)
    with trim(model, METHOD) as run:
        rows = logits(generate(model, together, 1))
        assert run.report.visual_tokens == _counted(together)
        for row, inputs in zip(rows, alone, strict=True):
            assert close(row, logits(generate(model, inputs, 1))[0]), "a batch is not what its samples are"


def second_turn(place: Place) -> None:
    """On the cache of the first turn."""
    model, processor = place.loaded
    inputs = _inputs(place, [[draw(SIZES["wide"])]])
    more = processor.tokenizer("And why?", add_special_tokens=False, return_tensors="pt")["input_ids"]

    def both() -> list[Any]:
        first = generate(model, inputs, STEPS)
        turn = follow_up(first, inputs, more)
        for name, value in _per_token(inputs).items():
            added = turn["input_ids"].shape[1] - value.shape[1]
            turn[name] = torch.nn.functional.pad(value, (0, added))
        return [first, generate(model, turn, STEPS)]

    stock = _tried(both)
    with trim(model, KeepEverything()):
        found = both()
    assert all(map(torch.equal, map(logits, found), map(logits, stock))), "keeping everything changes the logits"
    with trim(model, METHOD) as run:
        both()
    assert [report.visual_tokens for report in run.reports] == [_counted(inputs), [0]]


def video(place: Place) -> None:
    """A short film."""
    film = np.stack([np.asarray(draw((64, 48)).rotate(20 * i)) for i in range(4)])
    content = [{"type": "video", "video": film}, {"type": "text", "text": QUESTIONS[0]}]
    model, processor = place.loaded
    inputs = _tried(
        lambda: processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"do_sample_frames": False, "return_metadata": True},
        )
    )
    inputs.pop("video_metadata", None)
    assert sum(_counted(inputs))
    _unchanged(place, inputs)
    with trim(model, METHOD) as run:
        generate(model, inputs, STEPS)
    assert run.report.visual_tokens == _counted(inputs)


def _inputs(
    place: Place, images: Sequence[Sequence[Image.Image]], questions: Sequence[str] = QUESTIONS[:1]
) -> dict[str, Any]:
    model, processor = place.loaded
    return _tried(lambda: format_prompts(processor, questions, images)).to(dtype=model.dtype)


def _unchanged(place: Place, inputs: Any) -> None:
    model, _ = place.loaded
    stock = _stock(model, inputs)
    with trim(model, KeepEverything()) as run:
        found = generate(model, inputs, STEPS)
    assert torch.equal(logits(found), logits(stock)), "keeping everything changes the logits"
    assert run.report.visual_tokens == _counted(inputs), f"{run.report.visual_tokens} is not {_counted(inputs)}"


def _counted(inputs: Any) -> list[int]:
    """Placeholders that the processor wrote."""
    ids = inputs["input_ids"]
    return ((ids == IMAGE) | (ids == VIDEO)).sum(1).tolist()


def _per_token(inputs: Any) -> dict[str, Any]:
    shape = inputs["input_ids"].shape
    rest = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask", "labels")}
    return {name: value for name, value in rest.items() if getattr(value, "shape", None) == shape}


def _stock(model: Any, inputs: Any) -> Any:
    return _tried(lambda: generate(model, inputs, STEPS))


def _tried(stock: Any) -> Any:
    try:
        return stock()
    except Exception as error:
        raise StockModelError(f"{type(error).__name__}: {error}") from error
