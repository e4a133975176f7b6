"""Rounds: their order, their records, and errors."""

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from tests import guides, tiny
from tests.benchmark.subjects import subject, traces
from tests.families.zoo import FAMILIES
from vistrim import PVTP, SGL, ST3, VTA, Random, compose, trim
from vistrim._utils.labels import UNTOUCHED
from vistrim.architectures import discover
from vistrim.benchmark import rounds
from vistrim.benchmark.cost import untouched_cost
from vistrim.benchmark.keep_everything import KEEP_EVERYTHING, KeepEverything
from vistrim.benchmark.rounds import measure
from vistrim.benchmark.speed_summary import summarize
from vistrim.benchmark.subject import Subject
from vistrim.engine.releases import CACHE
from vistrim.errors import BenchmarkError, ResumeError

pytestmark = pytest.mark.usefixtures("few_objects")

METHODS = {"st3": ST3(1, 2, 0.3, horizon=8, interval=1), KEEP_EVERYTHING: KeepEverything()}
NEW = 3


def lines(folder):
    """The runs that a folder keeps."""
    rows = map(json.loads, (folder / "runs.jsonl").read_text().splitlines())
    return [run for row in rows if row.get("kind") == "round" for run in row["runs"]]


def places(folder):
    return [(line["round"], line["method"]) for line in lines(folder)]


def test_everyone_runs_once_in_each_round_and_begins_in_turn(tmp_path):
    told = []
    records = measure(
        subject(), METHODS, tmp_path, repeat=4, new_tokens=NEW, advance=lambda records: told.append(len(records.runs))
    )
    order = [UNTOUCHED, *METHODS]
    for number in range(4):
        now = [run.method for run in records.runs if run.round == number]
        assert sorted(now) == sorted(order)
        assert now[0] == order[number % 3]
    assert told == list(range(13))
    assert lines(tmp_path) == [asdict(run) for run in records.runs]
    for run in records.runs:
        assert len(run.step_seconds) == NEW - 1
        assert 0 < run.encode_seconds < run.first_token_seconds
        assert (run.select_seconds > 0) == (run.method != UNTOUCHED)
    assert [row.rounds for row in summarize(records.runs, records.costs)] == [4] * 3


def test_keeping_everything_has_the_same_answer_and_cost(monkeypatch, tmp_path):
    model, said = tiny.build(), {}
    generate = model.generate
    turn = [UNTOUCHED]

    def listen(**kwargs):
        said.setdefault(turn[0], []).append(output := generate(**kwargs))
        return output

    timed, labels = rounds._timed, {id(method): label for label, method in METHODS.items()}

    def told(subject, spec, method, new_tokens):
        turn[0] = labels.get(id(method), UNTOUCHED)
        return timed(subject, spec, method, new_tokens)

    monkeypatch.setattr(model, "generate", listen)
    monkeypatch.setattr(rounds, "_timed", told)
    records = measure(subject(model), METHODS, tmp_path, repeat=1, new_tokens=NEW)
    # The first of the untouched is the warm-up.
    assert torch.equal(said[UNTOUCHED][1], said[KEEP_EVERYTHING][0])
    assert not torch.equal(said[UNTOUCHED][1], said["st3"][0])
    full, kept = asdict(records.costs[UNTOUCHED]), asdict(records.costs[KEEP_EVERYTHING])
    assert full | {"notation": KEEP_EVERYTHING, "stages": kept["stages"]} == kept
    assert full["stages"] == 0 < kept["stages"]


def gemma():
    """Layers with heads of several widths, some of them with a sliding window."""
    family = FAMILIES["gemma4-bidirectional"]
    sample = family.sample()
    inputs = family.batch([sample, sample])
    return Subject(family.build(), inputs, sample.visual, sample.text, weight_bytes=1, settings={})


SUBJECTS = {
    "llama": lambda: subject(tiny.build()),
    "sliding window": lambda: subject(tiny.build("mistral", sliding_window=12)),
    "half precision": lambda: subject(tiny.build("qwen2").to(torch.bfloat16)),
    "layers that differ": gemma,
}


@pytest.mark.parametrize("kind", SUBJECTS)
def test_bytes_are_those_of_the_tensors(kind):
    measured = SUBJECTS[kind]()
    model, spec = measured.model, discover(measured.model)
    for method in (None, *METHODS.values(), PVTP(1, 2, 0.5)):
        held = []

        def count(module, args, kwargs, output, held=held):
            layers = output[CACHE].layers
            held.append(sum(t.numel() * t.element_size() for layer in layers for t in (layer.keys, layer.values)))

        hook = model.register_forward_hook(count, with_kwargs=True)
        report = rounds._timed(measured, spec, method, NEW).report
        hook.remove()
        assert (report.kv_bytes_per_step if report else untouched_cost(measured, spec, NEW).kv_bytes) == held
        assert len(held) == NEW


def test_costs_come_from_the_report(tmp_path):
    measured, method = subject(), METHODS["st3"]
    records = measure(measured, METHODS, tmp_path, repeat=1, new_tokens=NEW)
    with trim(measured.model, method) as run:
        measured.model.generate(**measured.inputs, do_sample=False, max_new_tokens=NEW)
    cost, report = records.costs["st3"], run.report
    assert cost.notation == str(method)
    assert cost.prefill_flops == report.prefill_flops < report.prefill_flops_full
    assert records.costs[UNTOUCHED].prefill_flops == report.prefill_flops_full
    assert cost.average_tokens == report.average_tokens < measured.visual_tokens
    assert cost.stages == len(report.stages) > 1
    assert cost.kv_bytes[-1] == report.kv_bytes
    assert records.costs[UNTOUCHED].kv_bytes[-1] == report.kv_bytes_full
    assert cost.weight_bytes == measured.weight_bytes
    limits = summarize(records.runs, records.costs)[1].speedups
    assert limits["prefill"].limit == report.prefill_flops_full / report.prefill_flops
    assert limits["step"].limit > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of three rounds that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    measure(subject(), METHODS, folder, repeat=3, new_tokens=2)
    return folder


@pytest.mark.parametrize(
    "cut", [pytest.param(1, marks=pytest.mark.slow), 3, 5, pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_benchmark_goes_on_where_it_was_cut_off(whole, tmp_path, cut):
    def interrupt(records):
        if len(records.runs) == cut:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(subject(), METHODS, tmp_path, repeat=3, new_tokens=2, advance=interrupt)
    before = lines(tmp_path)
    measure(subject(), METHODS, tmp_path, repeat=3, new_tokens=2)
    assert places(tmp_path) == places(whole)
    assert [line.keys() for line in lines(tmp_path)] == [line.keys() for line in lines(whole)]
    kept = cut // 3 * 3
    assert lines(tmp_path)[:kept] == before[:kept]


def test_nothing_runs_again_when_all_is_there_and_more_rounds_are_added(monkeypatch, tmp_path):
    first = measure(subject(), METHODS, tmp_path, repeat=1, new_tokens=2).runs
    more = measure(subject(), METHODS, tmp_path, repeat=2, new_tokens=2).runs
    assert more[:3] == first
    assert len(more) == 6
    monkeypatch.setattr(rounds, "_timed", None)
    assert measure(subject(), METHODS, tmp_path, repeat=2, new_tokens=2).runs == more


def test_other_settings_are_refused(monkeypatch, tmp_path):
    def again(measured=None, methods=METHODS, new_tokens=2):
        measure(measured or subject(), methods, tmp_path, repeat=1, new_tokens=new_tokens)

    again()
    with pytest.raises(ResumeError, match="new_tokens 2, now 3"):
        again(new_tokens=3)
    with pytest.raises(ResumeError, match="model 'tiny', now 'another'"):
        again(replace(subject(), settings={"model": "another"}))
    with pytest.raises(ResumeError, match="methods"):
        again(methods={**METHODS, "st3": ST3(1, 2, 0.4, horizon=8, interval=1)})
    with pytest.raises(ResumeError, match="methods"):
        again(methods={"st3": METHODS["st3"]})
    environment = rounds.stamp()
    monkeypatch.setattr(rounds, "stamp", lambda: environment | {"threads": 99, "processor": "Z80", "date": "later"})
    with pytest.raises(ResumeError, match=r"processor .*, now 'Z80'; threads .*, now 99\)"):
        again()
    monkeypatch.setattr(rounds, "stamp", lambda: environment | {"date": "later"})
    again()


def test_a_guide_that_changed_is_refused(tmp_path):
    measure(subject(), {"sgl": SGL(guides.build())}, tmp_path, repeat=1, new_tokens=2)
    with pytest.raises(ResumeError, match="identities"):
        measure(subject(), {"sgl": SGL(guides.build(seed=8))}, tmp_path, repeat=1, new_tokens=2)


def test_a_guide_counts_as_selection(tmp_path):
    records = measure(subject(), {"sgl": SGL(guides.shared())}, tmp_path, repeat=1, new_tokens=NEW)
    with trim(tiny.shared(), SGL(guides.shared())) as run:
        tiny.shared().generate(**subject().inputs, do_sample=False, max_new_tokens=NEW)
    cost, report = records.costs["sgl"], run.report
    assert sum(report.method_flops) > 0
    assert cost.prefill_flops == report.prefill_flops + sum(report.method_flops)
    (one,) = (run for run in records.runs if run.method == "sgl")
    assert 0 < one.select_seconds < one.first_token_seconds


@pytest.mark.parametrize(
    ("method", "error", "says"),
    [
        (PVTP(start_layer=9), ValueError, "choose a smaller start_layer"),
        (SGL(), ValueError, "sgl needs a guide"),
        (compose(SGL(guides.shared(), exit_threshold=0.5), VTA()), BenchmarkError, "leave out exit_threshold"),
        (SGL(guides.shared(), exit_threshold=0.5), BenchmarkError, "leave out exit_threshold"),
    ],
)
def test_methods_that_do_not_fit_are_refused_before_anything_runs(monkeypatch, tmp_path, method, error, says):
    monkeypatch.setattr(rounds, "_timed", None)
    with pytest.raises(error, match=says):
        measure(subject(), {"random": Random(), "it": method}, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"repeat": 0}, "repeat=0: must be at least 1"),
        ({"new_tokens": 0}, "new_tokens=0: must be at least 1"),
        ({"methods": {UNTOUCHED: PVTP()}}, "give the method another"),
    ],
)
def test_invalid_requests(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        measure(subject(), **{"methods": {}, "folder": tmp_path} | options)


def test_the_untouched_model_alone(tmp_path):
    model = tiny.build()
    model.generate(**subject().inputs, do_sample=False, max_new_tokens=1)
    before = traces(model)
    records = measure(subject(model), {}, tmp_path, repeat=2, new_tokens=1)
    assert [(row.label, row.step, row.rounds) for row in summarize(records.runs, records.costs)] == [
        (UNTOUCHED, None, 2)
    ]
    assert traces(model) == before
    assert records.costs[UNTOUCHED].average_tokens == subject().visual_tokens


def test_an_accelerator_is_warmed_up_by_every_method():
    for device, warmed in (("cpu", 1), ("cuda", 3)):
        pretended = SimpleNamespace(model=SimpleNamespace(device=torch.device(device)))
        assert rounds._warmed(pretended, {UNTOUCHED: None, **METHODS}) == [UNTOUCHED, *METHODS][:warmed]


@pytest.mark.parametrize("warmed", [1, 3])
def test_warming_up_is_short_and_comes_first(monkeypatch, tmp_path, warmed):
    model, ran, timed = tiny.build(), [], rounds._timed

    def counted(subject, spec, method, new_tokens):
        ran.append(new_tokens)
        return timed(subject, spec, method, new_tokens)

    monkeypatch.setattr(rounds, "_warmed", lambda subject, sides: list(sides)[:warmed])
    monkeypatch.setattr(rounds, "_timed", counted)
    records = measure(subject(model), METHODS, tmp_path, repeat=1, new_tokens=NEW)
    assert ran == [2] * warmed + [NEW] * 3
    assert len(records.runs) == 3


def test_an_answer_that_ends_early_is_refused(tmp_path):
    model = tiny.build()
    model.generation_config.max_time = 1e-9
    with pytest.raises(
        BenchmarkError, match=r"1 tokens instead of 2: .*remove that setting from model\.generation_config"
    ):
        measure(subject(model), {}, tmp_path, repeat=1, new_tokens=4)


def test_a_row_that_was_deleted_costs_its_round_alone(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    first = measure(subject(), METHODS, tmp_path, repeat=3, new_tokens=2).runs
    path = tmp_path / "runs.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(row for row in rows if '"of": 1,' not in row))
    again = measure(subject(), METHODS, tmp_path, repeat=3, new_tokens=2)
    assert sorted(run.round for run in again.runs) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [run for run in again.runs if run.round != 1] == [run for run in first if run.round != 1]
    path.write_text("".join(row for row in rows if '"of": "st3"' not in row))
    with pytest.raises(ResumeError, match="without their costs"):
        measure(subject(), METHODS, tmp_path, repeat=3, new_tokens=2)
