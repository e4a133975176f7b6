"""The command ``vistrim bench``, with findings by hand in place of a model."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.benchmark.made_rows import runs, trimmed, untouched
from tests.cli.invoke import error_line, vistrim
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark import benching, progress
from vistrim.benchmark.subject import Subject


@dataclass
class Bench:
    """The parts that make a model and measure, and what they were asked."""

    asked: list[Any] = field(default_factory=list)
    fails: BaseException | None = None

    def make_subject(self, wanted):
        self.asked.append(wanted)
        return Subject(
            SimpleNamespace(), {}, 576, 64, 1000, {"model": wanted.model, "visual_tokens": 576, "device": "cpu"}
        )

    def measure(self, subject, methods, folder, *, repeat, new_tokens, advance):
        self.asked.append((methods, repeat))
        assert new_tokens == self.asked[0].new_tokens
        if self.fails is not None:
            raise self.fails
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.rows(methods)
        found = runs(rows, repeat)
        for done in range(len(found) + 1):
            records = SimpleNamespace(runs=found[:done], costs={row.label: row.cost for row in rows[:done]})
            advance(records)
        return records

    def summarize(self, runs, costs):
        return self.rows([label for label in costs if label != UNTOUCHED]) if costs else []

    @staticmethod
    def rows(labels):
        return [untouched(), *(trimmed(label, 0.9 + 0.5 * i) for i, label in enumerate(labels))]


@pytest.fixture
def parts(monkeypatch):
    fake = Bench()
    for name in ("make_subject", "measure", "summarize"):
        monkeypatch.setattr(benching, name, getattr(fake, name))
    monkeypatch.setattr(progress, "summarize", fake.summarize)
    return fake


@pytest.fixture
def bench(parts, tmp_path, undrawn):
    return lambda *arguments: vistrim("bench", "--out", str(tmp_path / "out"), *arguments)


def test_tables_and_files(bench, tmp_path):
    result = bench()
    assert result.exit_code == 0
    for text in ("Time, medians", "Speed-up", "Memory", "keep-everything", "0.90x slower", "1.40x", "results.json"):
        assert text in result.stdout
    out = tmp_path / "out"
    found = json.loads((out / "results.json").read_text())
    assert [row["label"] for row in found["methods"]] == ["untouched", "keep-everything", "st3"]
    assert all(len(row["runs"]) == 5 for row in found["methods"])
    assert found["settings"] == {
        "model": "reference",
        "visual_tokens": 576,
        "device": "cpu",
        "weight_bytes": 1000,
        "rounds": 3,
    }
    assert (out / "results.png").exists()
    assert "**0.90x slower**" in (out / "results.md").read_text()


def test_defaults(bench, parts):
    bench()
    wanted, (methods, repeat) = parts.asked
    assert wanted.model == "reference"
    assert (wanted.batch, wanted.text_tokens, wanted.new_tokens, wanted.attn) == (1, 64, 32, None)
    assert wanted.layers is wanted.hidden is wanted.visual_tokens is wanted.distinct_layers is None
    assert list(methods) == ["keep-everything", "st3"]
    assert repeat == 5


def test_options_reach_what_is_measured(bench, parts):
    shape = ("--layers", "4", "--hidden", "512", "--distinct-layers", "2", "--batch", "3", "--visual-tokens", "100")
    rest = ("--text-tokens", "8", "--new-tokens", "9", "--dtype", "bfloat16", "--attn", "eager", "--device", "cpu")
    bench(
        "--model", "llava-1.5-7b", *shape, *rest, "--repeat", "2", "--method", "st3:stride=2", "--method", "untouched"
    )
    wanted, (methods, repeat) = parts.asked
    assert (wanted.layers, wanted.hidden, wanted.distinct_layers, wanted.batch) == (4, 512, 2, 3)
    assert (wanted.visual_tokens, wanted.text_tokens, wanted.new_tokens) == (100, 8, 9)
    assert (wanted.dtype, wanted.attn, wanted.device, repeat) == ("bfloat16", "eager", "cpu", 2)
    assert list(methods) == ["st3:stride=2"]


def test_json_is_the_results_file(bench, tmp_path):
    result = bench("--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "results.json").read_text())
    assert result.stderr == ""


def test_untouched_alone(bench):
    result = bench("--method", "untouched", "--json")
    assert [row["label"] for row in json.loads(result.stdout)["methods"]] == ["untouched"]


@pytest.mark.parametrize(("model", "told"), [("llava-1.5-7b", True), ("reference", False)])
def test_random_weights_are_told(bench, tmp_path, model, told):
    found = json.loads(bench("--model", model, "--json").stdout)
    assert found["random_weights"] is told
    assert ("The weights are random" in (tmp_path / "out" / "results.md").read_text()) is told


def test_threads_are_those_of_torch_and_in_the_stamp(bench):
    before = torch.get_num_threads()
    try:
        found = json.loads(bench("--threads", "1", "--json").stdout)
        assert found["environment"]["threads"] == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_live_tables_on_a_terminal(bench, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = bench("--repeat", "2", "--json")
    assert "round 2 of 2: st3 done, run 6 of 6" in result.stderr
    assert "Speed-up" in result.stderr
    json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "st4"), "no method called 'st4'"),
        (("--method", "st3", "--method", "st3:start_layer=none"), "are the same"),
        (("--dtype", "int8"), "dtype"),
        (("--device", "gpu"), "choose auto, cpu"),
        (("--layers", "0"), "--layers"),
        (("--batch", "0"), "--batch"),
        (("--new-tokens", "0"), "--new-tokens"),
        (("--repeat", "0"), "--repeat"),
        (("--threads", "0"), "--threads"),
        (("--bogus",), "See `vistrim bench --help`"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(bench, parts, tmp_path, arguments, says):
    result = bench(*arguments)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert not parts.asked
    assert not (tmp_path / "out").exists()


def test_out_below_a_file_is_refused(bench, parts, tmp_path):
    (tmp_path / "taken").touch()
    result = bench("--out", str(tmp_path / "taken" / "results"))
    assert result.exit_code == 2
    assert "is a file" in error_line(result)
    assert not parts.asked


def test_missing_packages_are_named(bench, parts, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = bench()
    assert result.exit_code == 1
    assert "pip install 'vistrim[eval]'" in error_line(result)
    assert not parts.asked


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: no")])
def test_out_of_memory_names_options_of_this_command(bench, parts, error):
    parts.fails = error
    result = bench()
    assert result.exit_code == 1
    line = error_line(result)
    assert line.startswith("out of memory: ")
    help_text = vistrim("bench", "--help").stdout
    assert all(word.strip(",") in help_text for word in line.split() if word.startswith("--"))


def test_a_mistake_of_ours_is_not_hidden(bench, parts):
    parts.fails = RuntimeError("unexpected")
    with pytest.raises(RuntimeError, match="unexpected"):
        bench()


def test_interrupt_says_how_to_go_on(bench, parts):
    parts.fails = KeyboardInterrupt()
    result = bench()
    assert result.exit_code == 130
    assert "the same command goes on from here" in result.stderr


def test_every_option_has_help():
    text = vistrim("bench", "--help").stdout
    for option in (
        *("--model", "--method", "--layers", "--hidden", "--distinct-layers", "--batch", "--visual-tokens"),
        *("--text-tokens", "--new-tokens", "--dtype", "--attn", "--device", "--repeat", "--threads", "--out", "--json"),
    ):
        assert option in text
