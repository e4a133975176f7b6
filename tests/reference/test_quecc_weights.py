"""The shipped models tuned for QueCC: stock classes, a compressor beside them, and right answers from few tokens."""

from statistics import mean

import pytest
import torch
from safetensors.torch import load_file

import vistrim
from vistrim import QueCC
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import with_images
from vistrim.reference.items import items
from vistrim.reference.tasks import SHORT_TASKS
from vistrim.shipped import NAMES, weights_path

pytestmark = pytest.mark.slow

SHIPPED = [name for name in NAMES if "quecc" in name]
PER_TASK = 4


@pytest.fixture(scope="module", params=SHIPPED)
def tuned(request):
    return request.param, *vistrim.load(request.param, device="cpu")


def accuracy(model, processor, images="own"):
    scores = []
    for task in SHORT_TASKS:
        asked = with_images(items(task, "test", "full", PER_TASK), images)
        given = answer(model, processor, asked, QueCC(), max_new_tokens=8)
        scores += [item.score(g.answer) for g, item in zip(given, asked, strict=True)]
    return mean(scores)


def test_small_files_in_bf16(tuned):
    folder = weights_path(tuned[0])
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 7 * 2**20
    for file in ("model.safetensors", "vistrim/quecc.safetensors"):
        assert {value.dtype for value in load_file(folder / file).values()} == {torch.bfloat16}


def test_answers_are_right_from_few_tokens_and_depend_on_the_image(tuned):
    name, model, processor = tuned
    assert accuracy(model, processor) >= 0.8
    assert accuracy(model, processor, "black") <= 0.45
    given = answer(model, processor, items("color", "test", "full", 1), QueCC(), 8)[0]
    assert given.average_tokens == int(name.rpartition("-")[2])
    assert given.prefill_flops + given.method_flops < given.prefill_flops_full / 2
