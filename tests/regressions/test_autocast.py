"""Mixed precision around a float32 model: layers then put out another dtype than they are given."""

import pytest
import torch

from tests import tiny
from tests.methods.every_method import SETTINGS, built
from vistrim import YOPO, trim

DTYPES = [torch.bfloat16, torch.float16]
HEADS = ((True, False, True, False),) * tiny.DEPTH


@pytest.mark.parametrize(
    ("name", "attention", "dtype"),
    [
        *((name, "sdpa", torch.bfloat16) for name in SETTINGS),
        *((name, "sdpa", torch.float16) for name in ("pool", "quecc", "st3", "yopo")),
        *((name, "eager", torch.bfloat16) for name in ("pool", "quecc", "st3", "yopo")),
    ],
    ids=str,
)
def test_every_method_generates(name, attention, dtype):
    model, inputs = tiny.shared("llama", attention), tiny.batch(tiny.RAGGED[:2])
    with trim(model, built(name)) as run, torch.autocast("cpu", dtype=dtype):
        output = tiny.generate(model, inputs, 3)
    assert tiny.logits(output).isfinite().all()
    assert run.report.generated_tokens == 3
    assert run.report.kv_bytes <= run.report.kv_bytes_full


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "method",
    [YOPO(window=3), YOPO(heads=HEADS), YOPO(heads=HEADS, normalize="all"), YOPO(ffn=0.5), YOPO(3, HEADS, None, 0.5)],
    ids=str,
)
def test_cuts_inside_the_layers_round_as_little_as_stock_does(method, dtype):
    """The prefill in mixed precision is as near to float32 as the stock model's is to its own."""
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED[:2])

    def error() -> float:
        with torch.no_grad():
            exact = model(**inputs).logits[:, -1]
            with torch.autocast("cpu", dtype=dtype):
                mixed = model(**inputs).logits[:, -1].float()
        return float((mixed - exact).norm() / exact.norm())

    stock = error()
    with trim(model, method):
        assert error() <= 3 * stock


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["fastv", "pool", "yopo"])
def test_gradients_of_labels(name, dtype):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED[:2])
    labels = inputs["input_ids"].clone()
    labels[:, :-2] = -100
    with trim(model, built(name)), torch.autocast("cpu", dtype=dtype):
        model(**inputs, labels=labels).loss.backward()
    gradients = [p.grad for p in model.get_decoder().parameters() if p.grad is not None]
    assert len(gradients) > 0
    assert all(gradient.isfinite().all() for gradient in gradients)
