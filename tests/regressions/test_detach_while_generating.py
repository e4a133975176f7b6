"""Detaching does not disturb generations of other threads: they finish as they began, and new ones are untrimmed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from tests import tiny
from tests.covering import covering
from tests.engine.test_lifecycle import fingerprint, used_model
from tests.methods.every_method import built
from vistrim import PVTP, ST3, FastV, UnsupportedModelError, trim

METHOD = ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1)
SECONDS = 60
NEW_TOKENS = 4


class Held:
    """A logits processor that holds a generation at its n-th token until it is let go."""

    def __init__(self, at: int = 1) -> None:
        self.reached, self.let_go = threading.Event(), threading.Event()
        self.left = at

    def __call__(self, ids, scores):
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            assert self.let_go.wait(SECONDS)
        return scores


@contextmanager
def generating(pool, model, inputs, at=1):
    """A generation that waits in another thread until the block ends."""
    held = Held(at)
    future = pool.submit(tiny.generate, model, inputs, NEW_TOKENS, logits_processor=[held])
    try:
        assert held.reached.wait(SECONDS)
        yield future
    finally:
        held.let_go.set()


@torch.no_grad()
def forward(model, inputs):
    return model(**inputs).logits


def same(output, expected) -> bool:
    return torch.equal(tiny.logits(output), tiny.logits(expected))


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@covering(1)
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("method", [METHOD, built("fastervlm"), built("yopo"), built("sgl")], ids=lambda m: m.name)
def test_a_running_generation_finishes_trimmed(pool, method, at):
    model, inputs = used_model()
    untouched, logits, before = tiny.generate(model, inputs, NEW_TOKENS), forward(model, inputs), fingerprint(model)
    with trim(model, method):
        expected = tiny.generate(model, inputs, NEW_TOKENS)
    assert not same(expected, untouched)
    run = trim(model, method).attach()
    with generating(pool, model, inputs, at) as future:
        run.detach()
        # It has returned, and the model is plain for everyone else.
        assert same(tiny.generate(model, inputs, NEW_TOKENS), untouched)
        assert torch.equal(forward(model, inputs), logits)
        assert not future.done()
    assert same(future.result(), expected)
    assert fingerprint(model) == before
    assert len(run.reports) == 1
    assert run.report.kv_tokens_per_layer
    assert same(tiny.generate(model, inputs, NEW_TOKENS), untouched)


def test_the_last_of_several_leaves_the_model_as_it_was(pool):
    model, inputs = used_model()
    before = fingerprint(model)
    with trim(model, METHOD):
        expected = tiny.generate(model, inputs, NEW_TOKENS)
    run = trim(model, METHOD).attach()
    with generating(pool, model, inputs) as last:
        with generating(pool, model, inputs, at=2) as first:
            run.detach()
        assert same(first.result(), expected)
        assert fingerprint(model) != before
    assert same(last.result(), expected)
    assert fingerprint(model) == before
    assert len(run.reports) == 2


def test_a_new_handle_waits_for_old_generations(pool):
    model, inputs = used_model()
    other = trim(model, FastV(1, 0.5))
    with trim(model, METHOD):
        expected = tiny.generate(model, inputs, NEW_TOKENS)
    with other:
        of_other = tiny.generate(model, inputs, NEW_TOKENS)
    run = trim(model, METHOD).attach()
    with generating(pool, model, inputs) as future:
        run.detach()
        for handle in (other, run):
            with pytest.raises(UnsupportedModelError, match="let generations that began in it end"):
                handle.attach()
    assert same(future.result(), expected)
    with other:
        assert same(tiny.generate(model, inputs, NEW_TOKENS), of_other)
    with run:
        assert same(tiny.generate(model, inputs, NEW_TOKENS), expected)


def test_detaching_from_inside_a_generation():
    model, inputs = used_model()
    before = fingerprint(model)
    run = trim(model, METHOD)
    with run:
        expected = tiny.generate(model, inputs, NEW_TOKENS)

    def detach(ids, scores):
        run.detach()
        return scores

    run.attach()
    assert same(tiny.generate(model, inputs, NEW_TOKENS, logits_processor=[detach]), expected)
    assert fingerprint(model) == before


def test_a_generation_that_fails_is_over_too(pool):
    model, inputs = used_model()
    before = fingerprint(model)

    def fail(ids, scores):
        raise RuntimeError("in the middle")

    run = trim(model, METHOD).attach()
    held = Held()
    future = pool.submit(tiny.generate, model, inputs, NEW_TOKENS, logits_processor=[held, fail])
    assert held.reached.wait(SECONDS)
    run.detach()
    held.let_go.set()
    with pytest.raises(RuntimeError, match="in the middle"):
        future.result()
    assert fingerprint(model) == before


def test_a_forward_pass_of_another_thread_finishes_trimmed(pool):
    model, inputs = used_model()
    before = fingerprint(model)
    reached, let_go = threading.Event(), threading.Event()

    with trim(model, PVTP(1, 2, 0.5)):
        expected = forward(model, inputs)
    run = trim(model, PVTP(1, 2, 0.5)).attach()

    def hold(module, args):
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            assert let_go.wait(SECONDS)

    handle = model.get_decoder().layers[3].register_forward_pre_hook(hold)
    future = pool.submit(forward, model, inputs)
    assert reached.wait(SECONDS)
    run.detach()
    handle.remove()
    let_go.set()
    assert torch.equal(future.result(), expected)
    assert fingerprint(model) == before


def test_key_press_in_a_forward_pass_does_not_count_for_ever():
    model, inputs = used_model()
    before = fingerprint(model)

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = model.get_decoder().layers[3].register_forward_pre_hook(interrupt)
    with torch.no_grad(), trim(model, METHOD), pytest.raises(KeyboardInterrupt):
        model(**inputs)
    handle.remove()
    assert fingerprint(model) == before


def test_many_threads_detach_at_any_time(pool):
    """At any moment, each answer is either the trimmed or the untrimmed one."""
    model, inputs = used_model()
    untouched, before = tiny.generate(model, inputs, NEW_TOKENS), fingerprint(model)
    with trim(model, METHOD):
        expected = tiny.generate(model, inputs, NEW_TOKENS)
    for _ in range(2):
        run = trim(model, METHOD).attach()
        futures = [pool.submit(tiny.generate, model, inputs, NEW_TOKENS) for _ in range(6)]
        futures[0].result()
        run.detach()
        outputs = [future.result() for future in futures]
        assert all(same(output, expected) or same(output, untouched) for output in outputs)
        assert fingerprint(model) == before
