"""Training data of routers equal runs of the model; training separates separable data."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from tests.cli.checkpoint import build_processor
from tests.closeness import close
from vistrim import VTW, trim
from vistrim.calibration.dyvte_exits import agreement, exits, teacher_forced
from vistrim.calibration.dyvte_routers import ITEMS_PER_FILE, collect, train_routers
from vistrim.core.routing import exits_by_code
from vistrim.evaluation.items import Item, Task

WORDS = ["w9 w10", "w11 w12 w13 w14", "w15", "w16 w17 w18 w19 w20", "w9 w30"]


def make_items(count=5):
    def picture(i):
        return lambda: Image.fromarray(np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8))

    return [Item(f"i{i}", Task("t"), WORDS[i % 5], WORDS[(i + 2) % 5], picture(i)) for i in range(count)]


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_exits_equal_running_the_model_without_the_image_from_there_on(processor, attention):
    model, items = tiny.shared("llama", attention), make_items()
    torch.manual_seed(0)
    found = exits(model, processor, items)
    inputs, labels = teacher_forced(model, processor, items)
    untouched = model(**inputs, output_hidden_states=True)
    full = untouched.logits
    answers = labels[:, 1:] != -100
    for layer in range(tiny.DEPTH - 1):
        with trim(model, VTW(layer + 1)):
            without = model(**inputs, labels=labels).logits
        same = full[:, :-1].argmax(-1) == without[:, :-1].argmax(-1)
        for b in range(len(items)):
            of_answer, right = answers[b], labels[b, 1:][answers[b]]
            assert found["alike"][b, layer] == same[b][of_answer].float().mean()
            for logits, name in ((full, "entropy_full"), (without, "entropy_without")):
                value = found[name][b] if name == "entropy_full" else found[name][b, layer]
                expected = torch.nn.functional.cross_entropy(logits[b, :-1][of_answer], right)
                assert close(value, expected)
            first, image = of_answer.nonzero()[0].item(), (inputs["input_ids"][b] == tiny.IMAGE).nonzero().max().item()
            words = untouched.hidden_states[layer + 1][b, image + 1 : first + 1]
            summary = torch.cat([words[:-1].mean(0), words[-1]])
            assert close(found["summary"][b, layer], summary)


def test_a_batch_equals_its_samples_alone(processor):
    model, items = tiny.shared(), make_items()
    together = exits(model, processor, items)
    for b, item in enumerate(items):
        for name, value in exits(model, processor, [item]).items():
            assert close(together[name][b], value[0])


def test_answers_are_the_labels(processor):
    items = make_items(2)
    inputs, labels = teacher_forced(tiny.shared(), processor, items)
    for b, item in enumerate(items):
        assert processor.tokenizer.decode(labels[b][labels[b] != -100]) == f"{item.answer} </s>"
        assert torch.equal(inputs["input_ids"][b][labels[b] != -100], labels[b][labels[b] != -100])
        assert not (inputs["attention_mask"][b][labels[b] != -100] == 0).any()


def test_an_interrupted_collection_goes_on(processor, tmp_path, monkeypatch):
    model, items = tiny.shared(), make_items(ITEMS_PER_FILE + 3)
    seen = []

    def stop(count):
        seen.append(count)
        if sum(seen) > ITEMS_PER_FILE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, processor, items, tmp_path, "weights", 64, stop)
    kept = sorted(tmp_path.glob("*.safetensors"))
    assert len(kept) == 1
    changed = kept[0].stat().st_mtime_ns
    advanced = []
    found = collect(model, processor, items, tmp_path, "weights", 64, advanced.append)
    assert kept[0].stat().st_mtime_ns == changed
    assert advanced == [ITEMS_PER_FILE, 3]
    assert found["summary"].shape == (len(items), tiny.DEPTH - 1, 64)
    assert close(found["summary"][-3:], exits(model, processor, items[-3:])["summary"])
    # Another model's measurements are others.
    monkeypatch.setattr(
        "vistrim.calibration.dyvte_routers.exits", lambda *_: (_ for _ in ()).throw(RuntimeError("measured"))
    )
    collect(model, processor, items, tmp_path, "weights", 64)
    with pytest.raises(RuntimeError, match="measured"):
        collect(model, processor, items, tmp_path, "other weights", 64)


def test_training_separates_the_summaries():
    generator = torch.Generator().manual_seed(0)
    summary = torch.randn(1200, 3, 8, generator=generator)
    may_exit = torch.stack([summary[:, layer, layer] > 0.1 * summary[:, layer, 5] for layer in range(3)], 1)
    epochs = []
    trained = train_routers(summary, may_exit, width=16, epochs=30, lr=1e-2, advance=lambda: epochs.append(1))
    again = train_routers(summary, may_exit, width=16, epochs=30, lr=1e-2)
    assert len(epochs) == 30
    assert torch.equal(trained.w1, again.w1)
    assert trained.w1.shape == (3, 16, 8)
    assert trained.w2.shape == (3, 2, 16)
    assert trained.right_exits > 0.95
    assert trained.exit_depth == pytest.approx(trained.allowed_depth, abs=0.15)


def test_rules_use_the_measurements(processor):
    found = exits(tiny.shared(), processor, make_items())
    assert exits_by_code(agreement(found)).shape == (5, tiny.DEPTH - 1)
