"""The engine: answers in batches equal answers alone, and failing requests change no other answer."""

import math
from types import SimpleNamespace

import pytest

import vistrim
from tests.serving.running import Asked, Raises, apart, ask, conversation, engine, eventually, loaded
from vistrim._utils.labels import UNTOUCHED
from vistrim.serving import rows
from vistrim.serving.jobs import Done, Failed
from vistrim.serving.sampling import Sampling

QUESTIONS = (
    ("describe the image .", 1),
    ("what color is the star ?", 3),
    ("hello",),
    ("describe the image .", 2, 3),
)


@pytest.fixture(scope="module")
def made():
    with engine() as running:
        yield running


def asked_all(made, **settings):
    return [Asked(made, conversation(*question), **settings) for question in QUESTIONS]


@pytest.mark.parametrize(
    "settings",
    [
        {"limit": 12},
        {"limit": 12, "method": vistrim.ST3(start_layer=1, stride=1), "trace": True},
        {"limit": 12, "method": vistrim.FastV(keep=0.25), "sampling": Sampling(1.3, 0.9, seed=11), "top_logprobs": 3},
    ],
    ids=["untouched", "st3", "sampled"],
)
def test_answers_in_a_batch_equal_answers_alone_and_those_of_generate(made, settings):
    together = asked_all(made, **settings)
    ends = ask(made, *together)
    assert [end.figures["batch_size"] for end in ends] == [4] * 4
    alone = asked_all(made, **settings)
    for one, other, end in zip(together, alone, ends, strict=True):
        [expected] = ask(made, other)
        assert (one.text, end.reason, end.completion_tokens) == (
            other.text,
            expected.reason,
            expected.completion_tokens,
        )
        counts = ("visual_tokens_per_layer", "kv_bytes", "kv_bytes_full", "kv_bytes_per_step", "prefill_flops", "trace")
        for name in counts:
            assert end.figures.get(name) == expected.figures.get(name), name
        for piece, same in zip(one.pieces, other.pieces, strict=True):
            for a, b in zip(piece.logprobs, same.logprobs, strict=True):
                assert (a.token, a.logprob) == (b.token, pytest.approx(b.logprob, rel=1e-3))
                assert len(a.top) == 3
        if "sampling" not in settings:
            assert one.text == generated(other.job)


def generated(job):
    """The answer of a plain call of ``generate``."""
    model, processor = apart(), loaded()[1]
    call = {**job.inputs, "max_new_tokens": job.limit, "do_sample": False}
    if job.method is None:
        output = model.generate(**call)
    else:
        with vistrim.trim(model, job.method):
            output = model.generate(**call)
    return processor.decode(output[0, job.prompt_tokens :], skip_special_tokens=True)


def test_the_figures_are_those_of_the_report(made):
    method = vistrim.ST3(start_layer=1, stride=1, drop_per_cut=0.5)
    asked = Asked(made, conversation(*QUESTIONS[0]), method=method, trace=True)
    [end] = ask(made, asked)
    with vistrim.trim(apart(), method, trace=True) as run:
        apart().generate(**asked.job.inputs, max_new_tokens=24, do_sample=False)
    report, figures = run.report, end.figures
    assert figures["visual_tokens_per_layer"] == [n for [n] in report.visual_tokens_per_layer]
    assert figures["kv_bytes_per_step"] == report.kv_bytes_per_step
    assert figures["kv_bytes_full_per_step"] == report.kv_bytes_full_per_step
    assert (figures["kv_bytes"], figures["kv_bytes_full"]) == (report.kv_bytes, report.kv_bytes_full)
    assert figures["kv_bytes_peak"] == report.kv_bytes_peak
    assert (figures["prefill_flops"], figures["prefill_flops_full"]) == (
        report.prefill_flops,
        report.prefill_flops_full,
    )
    assert figures["trace"] == report.trace.to_dict()
    [untouched] = ask(made, Asked(made, conversation(*QUESTIONS[0])))
    assert untouched.figures["method"] == UNTOUCHED
    assert untouched.figures["kv_bytes"] == untouched.figures["kv_bytes_full"]
    assert untouched.figures["visual_tokens_per_layer"] == [report.visual_tokens[0]] * 4


def test_each_row_has_its_own_limit_and_stop_strings(made):
    whole = Asked(made, conversation(*QUESTIONS[0]))
    ask(made, whole)
    words = whole.text.split()
    some = [
        Asked(made, conversation(*QUESTIONS[0])),
        Asked(made, conversation(*QUESTIONS[0]), limit=2),
        Asked(made, conversation(*QUESTIONS[0]), stops=[f" {words[3]}"]),
    ]
    ends = ask(made, *some)
    assert [each.text for each in some] == [whole.text, " ".join(words[:2]), " ".join(words[:3])]
    assert [end.reason for end in ends[1:]] == ["length", "stop"]


class Poison:
    """Sampling that fails at its n-th step."""

    top_p, seed = 1.0, 0

    def __init__(self, error, steps=3):
        self._error, self._left = error, steps

    @property
    def temperature(self):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return 0.0


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("/secret/path"), 500), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 503)],
    ids=["fault", "memory"],
)
def test_a_failing_request_changes_no_other_answer(made, error, status):
    good = asked_all(made)[:3]
    expected = asked_all(made)[:3]
    ask(made, *expected)
    bad = Asked(made, conversation(*QUESTIONS[0]), sampling=Poison(error))
    *ends, failed = ask(made, *good, bad)
    assert isinstance(failed, Failed)
    assert failed.error.status == status
    assert "secret" not in str(failed.error)
    assert all(isinstance(end, Done) for end in ends)
    # What was streamed before the fault is not repeated.
    assert [each.text for each in good] == [each.text for each in expected]
    # The model is as before.
    again = Asked(made, conversation(*QUESTIONS[0]))
    ask(made, again)
    assert again.text == expected[0].text


def test_a_method_that_fails_is_reported_and_leaves_no_hooks(made):
    [failed] = ask(made, Asked(made, conversation(*QUESTIONS[0]), method=Raises()))
    assert failed.error.status == 500
    assert "generate" not in vars(loaded()[0])


def test_a_batch_ends_when_all_its_clients_have_gone_and_no_text_follows(made):
    some = [Asked(made, conversation("describe the image .", n), limit=800) for n in (1, 2)]
    for each in some:
        # Without an end token, an answer would go on to its limit.
        each.job.stops = ()
        made.submit(each.job)
    for each in some:
        each.events.get(timeout=60)
        each.job.cancel()
    assert eventually(lambda: made.running == 0)
    # Those that wait are dropped as well.
    waiting = Asked(made, conversation(*QUESTIONS[0]))
    waiting.job.cancel()
    made.submit(waiting.job)
    assert eventually(lambda: waiting.job.is_over)
    assert waiting.events.empty()


def test_deadlines_hold_while_waiting_and_while_generating(made, monkeypatch):
    late = Asked(made, conversation(*QUESTIONS[0]), seconds=0.0)
    slow = Asked(made, conversation(*QUESTIONS[0]), limit=24)
    [over] = ask(made, late)
    assert over.error.status == 504
    made.submit(slow.job)
    slow.events.get(timeout=60)
    monkeypatch.setattr(rows, "time", SimpleNamespace(monotonic=lambda: math.inf))
    assert slow.ended().error.status == 504


def test_jobs_with_different_methods_do_not_share_a_batch(made):
    some = [Asked(made, conversation(*QUESTIONS[1]), method=method) for method in (None, vistrim.FastV(), None)]
    assert [end.figures["batch_size"] for end in ask(made, *some)] == [2, 1, 2]


def test_a_closed_engine_answers_what_waits_and_refuses_the_rest():
    with engine(wait_seconds=60) as made:
        waiting = Asked(made, conversation(*QUESTIONS[1]))
        made.submit(waiting.job)
    assert isinstance(waiting.ended(), Done)
    late = Asked(made, conversation(*QUESTIONS[1]))
    made.submit(late.job)
    assert late.ended().error.status == 503


def test_text_is_text(made):
    with_token, without = (made.preparer.prepare(conversation(text, 1)) for text in ("a <image> b", "a b"))
    token = loaded()[0].config.image_token_id
    assert (with_token["input_ids"] == token).sum() == (without["input_ids"] == token).sum()
