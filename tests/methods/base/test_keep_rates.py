"""Keep rates, from a sigmoid or a file: what they keep, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_against_oracle import follow
from tests.oracle import Oracle
from vistrim import PVTP, GSearch, PSigmoid, Uniform, compose, trim
from vistrim.architectures import discover
from vistrim.core.sigmoid import sigmoid_rates
from vistrim.methods.base.keep_rates import KeepRates
from vistrim.methods.base.schedule_file import Schedule, read_schedule

RATES = (1.0, 0.8, 0.8, 0.3, 0.0)
EVERYTHING = (1.0,) * tiny.DEPTH


def write(path: Path, method: str = "gsearch", **changed) -> str:
    values = {"model": "", "layers": tiny.DEPTH, "rates": RATES, "rows": "last", "made_with": {}, "vistrim": "0"}
    Schedule(method, **values | changed).write(path)
    return str(path)


def counted(rates):
    """For the oracle: smallest whole number of tokens that is no less than the share, as strings round it."""

    def kept(n, layer, step):
        exact = float(f"{rates[layer] * n:.9f}")
        least = int(exact) + (exact > int(exact))
        return n if step else max(least, rates[layer] > 0)

    return kept


@covering
@pytest.mark.parametrize("text", tiny.TEXTS)
@pytest.mark.parametrize("samples", [tiny.RAGGED, tiny.SAME_LENGTH, [tiny.sample(1, 4), tiny.sample(0, 30)]])
@pytest.mark.parametrize(
    ("method", "rates"),
    [
        (PSigmoid(budget=0.5, kappa=1.0), (1, 0.67724, 0.46319, 0.24914, 0.11043)),
        (PSigmoid(budget=0.3, kappa=5.0), None),
        (KeepRates(RATES), RATES),
        (KeepRates((1, 1 / 16, 1 / 16, 0.05, 1e-9)), (1, 1 / 16, 1 / 16, 0.05, 1e-9)),
    ],
    ids=["sigmoid", "step", "rates", "one-left"],
)
def test_equals_the_oracle(method, rates, samples, text):
    rates = rates or sigmoid_rates(5.0, 0.3, tiny.DEPTH)
    inputs = tiny.batch(samples)
    with trim(tiny.shared(text), method) as run:
        output = tiny.generate(tiny.shared(text), inputs, 4)
    for b, sample in enumerate(samples):
        oracle = Oracle(tiny.shared(text, "eager"), counted(rates))
        answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
        assert close(tiny.logits(output)[b], follow(oracle, sample, answer))
        assert [n[b] for n in run.report.kv_tokens_per_layer] == oracle.kv_lengths()


@pytest.mark.parametrize("rows", ["last", "prompt"])
def test_what_ranks(rows):
    """The tokens kept by a first cut are those that the rows attend to, by the model's own attention maps."""
    model, sample = tiny.shared("llama", "eager"), tiny.sample(2, 12)
    inputs = tiny.batch([sample])
    for layer in range(1, tiny.DEPTH):
        rates = (1.0,) * layer + (0.4,) * (tiny.DEPTH - layer)
        with torch.no_grad(), trim(model, KeepRates(rates, rows)) as run:
            model(**inputs)
        with torch.no_grad():
            weights = model(**inputs, output_attentions=True).attentions[layer - 1][0].mean(0)
        visual = [i for i, token in enumerate(sample.ids) if token == tiny.IMAGE]
        asking = range(visual[-1] + 1, len(sample.ids)) if rows == "prompt" else [len(sample.ids) - 1]
        received = weights[list(asking)].mean(0)[visual]
        assert len(asking) == (10 if rows == "prompt" else 1)
        (stage,) = run.report.stages
        assert stage.layer == layer
        assert stage.kept[0] == sorted(received.topk(13).indices.tolist())


def test_equals_pvtp_where_the_numbers_agree():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    outputs = []
    for method in (PVTP(1, 1, 0.5), KeepRates((1, 0.5, 0.25, 0.125, 0.0625))):
        with trim(model, method):
            outputs.append(tiny.generate(model, inputs))
    assert torch.equal(*map(tiny.logits, outputs))


@pytest.mark.parametrize("rows", ["last", "prompt"])
def test_keeping_everything_changes_no_bit(rows, tmp_path):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs)
    file = write(tmp_path / "all.json", rates=EVERYTHING, rows=rows)
    for method in (PSigmoid(budget=1, kappa=1), GSearch(file), KeepRates(EVERYTHING, rows)):
        with trim(model, method) as run:
            assert torch.equal(tiny.logits(tiny.generate(model, inputs)), tiny.logits(untouched))
        assert not run.report.stages
        assert run.report.kv_bytes == run.report.kv_bytes_full


def test_only_layers_where_the_count_can_fall_are_cuts():
    assert KeepRates((1, 1, 0.5, 0.5, 0.2, 0)).prefill_layers(6) == (2, 4, 5)
    assert KeepRates((1,) * 6).prefill_layers(6) == ()


def test_a_schedule_file_is_the_sigmoid_that_it_was_made_of(tmp_path):
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    rates = sigmoid_rates(0.9, 0.5, tiny.DEPTH)
    file = write(tmp_path / "s.json", "psigmoid", rates=rates)
    assert read_schedule(Path(file)).rates == rates
    reports = []
    for method in (PSigmoid(file), PSigmoid(budget=0.5, kappa=0.9)):
        with trim(model, method) as run:
            reports.append((tiny.logits(tiny.generate(model, inputs)), run.report.stages))
        assert run.report.method == str(method)
    assert torch.equal(reports[0][0], reports[1][0])
    assert reports[0][1] == reports[1][1]


def test_rates_count_what_a_stage_before_has_left():
    method = compose(Uniform(8), PSigmoid(budget=0.5, kappa=1.0))
    with trim(tiny.shared(), method) as run:
        tiny.generate(tiny.shared(), tiny.batch([tiny.sample(1, 9)]))
    alone = [counted(sigmoid_rates(1.0, 0.5, tiny.DEPTH))(8, layer, 0) for layer in range(tiny.DEPTH)]
    assert [n[0] for n in run.report.visual_tokens_per_layer] == alone


@pytest.mark.parametrize(
    ("rates", "rows", "says"),
    [
        ((), "last", "must begin with 1"),
        ((0.9, 0.5), "last", "must begin with 1"),
        ((1, 0.5, 0.6), "last", "must not rise"),
        ((1, 0.5, -0.1), "last", "between 0 and 1"),
        ((1, float("nan")), "last", "between 0 and 1"),
        ((1, 0.5), "all", "must be last or prompt"),
    ],
)
def test_rates_out_of_range(rates, rows, says):
    with pytest.raises(ValueError, match=says):
        KeepRates(rates, rows)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (GSearch(), "gsearch needs a schedule .*calibrate gsearch --out FILE"),
        (PSigmoid(), "psigmoid needs budget and kappa.*calibrate psigmoid --out FILE"),
        (GSearch("no/such/file.json"), "there is no schedule no/such/file.json: .*calibrate gsearch"),
        (PSigmoid(budget=0.1, kappa=1.0), "0.2000 of them: set the budget to at least that"),
        (KeepRates((1, 0.5)), "2 rates, but the model has 5 decoder layers"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(method, says):
    with pytest.raises(ValueError, match=says):
        trim(tiny.shared(), method)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"schedule": "a.json", "budget": 0.5}, "either a schedule or budget and kappa"),
        ({"schedule": "a.json", "kappa": 0.5}, "either a schedule or budget and kappa"),
        ({"budget": 0.5}, "give both"),
        ({"kappa": 0.5}, "give both"),
        ({"budget": 1.5, "kappa": 1.0}, "at most 1"),
        ({"budget": 0.0, "kappa": 1.0}, "above 0"),
        ({"budget": 0.5, "kappa": 0.0}, "above 0"),
        ({"budget": 0.5, "kappa": float("nan")}, "above 0"),
    ],
)
def test_psigmoid_parameters(parameters, says):
    with pytest.raises(ValueError, match=says):
        PSigmoid(**parameters)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"method": "psigmoid"}, "is a schedule for psigmoid: use it with --method psigmoid"),
        ({"model": "llava-1.5-7b-hf"}, "'llava-1.5-7b-hf', and this one is this model .*calibrate gsearch"),
        ({"layers": 4, "rates": RATES[:4]}, "4 layers, and this one is this model \\(5 layers"),
        ({"layers": 4}, "5 rates for 4 layers"),
        ({"rates": (1.0, 0.5, 0.6, 0.5, 0.5)}, "must not rise"),
        ({"rates": (1.0, 0.5, 0.4, 0.4, -1.0)}, "between 0 and 1"),
        ({"rates": (1.0, "0.5", 0.4, 0.4, 0.1)}, "damaged \\(rates\\)"),
        ({"rates": (0.5,) * 5}, "must begin with 1"),
        ({"rows": "words"}, "must be last or prompt"),
        ({"made_with": []}, "damaged \\(made_with\\)"),
    ],
)
def test_files_that_do_not_fit(changed, says, tmp_path):
    file = write(tmp_path / "s.json", **changed)
    with pytest.raises(ValueError, match=says):
        trim(tiny.shared(), GSearch(file))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no schedule, or is damaged"),
        ('{"format": 1, "method": ', "no schedule, or is damaged"),
        ("[1, 2]", "is no schedule"),
        ('{"rates": [1]}', "is no schedule"),
        ('{"format": 2}', "another format"),
        ('{"format": 1}', "damaged \\(method, model"),
        ("\xff\xfe", "no schedule, or is damaged"),
    ],
)
def test_damaged_files(content, says, tmp_path):
    path = tmp_path / "s.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=says):
        trim(tiny.shared(), GSearch(str(path)))


def test_odd_entries_and_unreadable_files(tmp_path):
    path = Path(write(tmp_path / "s.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": 1}))
    with pytest.raises(ValueError, match=r"damaged \(extra\)"):
        read_schedule(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_schedule(tmp_path)


def test_the_file_is_looked_for_at_home_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "s.json")
    fitted = GSearch("~/s.json").fitted(discover(tiny.shared()).facts)
    assert fitted == KeepRates(RATES)
