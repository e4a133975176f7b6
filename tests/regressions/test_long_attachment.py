"""A handle that stays attached for hours holds no more after a thousand calls than after a few."""

import gc

import pytest
import torch

from tests import tiny
from tests.methods.every_method import SETTINGS, built
from vistrim import ST3, FastV, trim


def tensors() -> list[torch.Tensor]:
    # The exact types: `isinstance` asks objects that only pretend to be of some class, and the tensors that a
    # compiled test traced with, which other tests leave in the process, have no memory to be counted.
    return [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]


def live() -> tuple[int, int]:
    """How many tensors there are, and the bytes of their memory."""
    gc.collect()
    found = tensors()
    return len(found), sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in found}.values())


def generate(model, inputs):
    model.generate(**inputs, max_new_tokens=3)


def forward(model, inputs):
    with torch.no_grad():
        model(**inputs)


def forward_with_labels(model, inputs):
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    model.zero_grad()


def fail_while_decoding(model, inputs):
    def stop(ids, scores):
        if ids.shape[1] > inputs["input_ids"].shape[1]:
            raise RuntimeError("stopped")
        return scores

    with pytest.raises(RuntimeError, match="stopped"):
        model.generate(**inputs, max_new_tokens=3, logits_processor=[stop])


def fail_in_prefill(model, inputs):
    def stop(module, args):
        raise RuntimeError("stopped")

    handle = model.get_decoder().layers[-1].register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="stopped"):
        forward(model, inputs)
    with pytest.raises(RuntimeError, match="stopped"):
        generate(model, inputs)
    handle.remove()


def abandon(model, inputs):
    """A decoding loop without `generate` that stops early, and a cache that is no longer used."""
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        model(input_ids=torch.tensor([[5]] * len(inputs["input_ids"])), past_key_values=cache)


CALLS = [generate, forward, forward_with_labels, fail_while_decoding, fail_in_prefill, abandon]


@pytest.mark.slow
def test_nothing_is_held_on_to():
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED[:2])
    with trim(model, ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1)) as run:
        for call in CALLS:
            call(model, inputs)
        before = live()
        for call in CALLS * 2:
            call(model, inputs)
        assert live() == before
        assert run.report.stages
    assert live() == before


@pytest.mark.slow
def test_no_method_makes_a_report_hold_tensors():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED[:2])
    runs = {name: trim(model, built(name)) for name in SETTINGS}

    def call_all():
        for run in runs.values():
            with run:
                generate(model, inputs)

    call_all()
    before = live()
    call_all()
    assert live() == before
    assert [len(run.reports) for run in runs.values()] == [2] * len(runs)


def test_a_pass_ends_without_the_garbage_collector():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED[:2])
    with trim(model, built("yopo")):
        forward(model, inputs)
        before = live()
        gc.disable()
        try:
            for _ in range(3):
                forward(model, inputs)
            found = len(tensors())
        finally:
            gc.enable()
    assert found == before[0]


def test_the_last_reports_are_kept():
    model = tiny.shared()
    with trim(model, FastV(), reports=2) as run, torch.no_grad():
        for text in (4, 5, 6):
            model(**tiny.batch([tiny.sample(1, text)]))
    assert [report.prompt_tokens for report in run.reports] == [[5 + 1 + 16], [6 + 1 + 16]]
    assert run.report == run.reports[-1]


@pytest.mark.parametrize(("reports", "kept"), [(16, 16), (None, 18)])
def test_how_many_are_kept(reports, kept):
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 4)])
    handle = trim(model, FastV()) if reports == 16 else trim(model, FastV(), reports=reports)
    with handle as run, torch.no_grad():
        for _ in range(18):
            model(**inputs)
    assert len(run.reports) == kept


@pytest.mark.parametrize("reports", [0, -1, 1.5, True, "3"])
def test_wrong_numbers_of_reports(reports):
    with pytest.raises(ValueError, match=r"reports=.*at least 1, or None"):
        trim(tiny.shared(), FastV(), reports=reports)
