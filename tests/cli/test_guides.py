"""Methods with a guide on the command line."""

import json

import pytest
from typer.testing import CliRunner

import vistrim as library
from tests import guides
from tests.cli.checkpoint import build_processor
from tests.cli.invoke import error_line, vistrim
from tests.cli.test_run import LENGTH, as_json, generated
from vistrim.cli.app import app
from vistrim.cli.parsing import parse_method

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


@pytest.fixture(scope="module")
def guide(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("guide") / "small"
    guides.build().save_pretrained(path)
    build_processor().save_pretrained(path)
    return str(path)


def evaluate(checkpoint, out, *methods):
    asked = ("--tasks", "color,count", "--limit", "2", "--level", "several", "--max-new-tokens", "4")
    chosen = [part for method in methods for part in ("--method", method)]
    return vistrim("eval", "--model", checkpoint, "--out", str(out), *asked, *chosen)


def test_evaluation_with_and_without_exits(checkpoint, guide, tmp_path):
    method = f"sgl:guide={guide},keep=0.2"
    result = evaluate(checkpoint, tmp_path / "guided", method)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "guided" / "results.json").read_text())
    figures = found["methods"][1]["groups"]["Short answers"]
    # 2 of 5 layers with 16 tokens, the others with 3.
    assert figures["average_tokens"] == pytest.approx((2 * 16 + 3 * 3) / 5)
    assert figures["method_flops"] > 0
    assert figures["exited"] == 0
    assert "exited" not in (tmp_path / "guided" / "results.md").read_text().split("###")[1]

    result = evaluate(checkpoint, tmp_path / "exits", f"{method},exit_threshold=0", "uniform:keep=4")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "exits" / "results.json").read_text())
    untouched, exits, uniform = (row["groups"]["Short answers"] for row in found["methods"])
    assert (untouched["exited"], exits["exited"], uniform["exited"]) == (0, 1, 0)
    assert exits["prefill_flops"] == exits["kv_mean"] == exits["kv_peak"] == exits["average_tokens"] == 0
    assert exits["prefill_flops_full"] == untouched["prefill_flops_full"]
    full, vision = untouched["prefill_flops_full"], untouched["vision_flops"]
    assert exits["flops_ratio"] == pytest.approx(full / exits["method_flops"])
    assert exits["flops_ratio_with_vision"] == pytest.approx((full + vision) / exits["method_flops"])
    markdown = (tmp_path / "exits" / "results.md").read_text()
    assert "| KV peak | exited |" in markdown
    assert "| 100.0 % |\n" in markdown


def test_the_same_guide_serves_all_batches(checkpoint, guide, tmp_path, monkeypatch):
    loaded, load = [], library.loading.load
    monkeypatch.setattr("vistrim.loading.load", lambda *a, **k: loaded.append(a[0]) or load(*a, **k))
    assert evaluate(checkpoint, tmp_path, f"sgl:guide={guide}").exit_code == 0
    assert loaded == [guide]


def test_answers_and_report(checkpoint, guide, image):
    (line,) = as_json(
        *("run", image, "-p", "what is this", "--model", checkpoint, "--method", f"sgl:guide={guide}", *LENGTH)
    )
    method = parse_method(f"sgl:guide={guide}")
    assert line["answer"] == generated(checkpoint, image, "what is this", method)
    assert line["report"]["method"] == str(method)
    assert line["report"]["guide_seconds"] > 0
    assert line["report"]["exited"] == [False]


def test_an_exit_streams_and_compares(checkpoint, guide, image, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    common = ["run", image, "-p", "what is this", "--model", checkpoint, *LENGTH]
    common += ["--method", f"sgl:guide={guide},exit_threshold=0"]
    answer = generated(guide, image, "what is this")
    alone = CliRunner().invoke(app, common, color=True)
    assert alone.exit_code == 0, alone.stderr
    assert alone.stdout.count(answer) == 1
    assert "1 of 1" in alone.stdout
    both = CliRunner().invoke(app, [*common, "--compare", "--repeats", "1"], color=True)
    assert both.exit_code == 0, both.stderr
    assert both.stdout.index("trimmed:") < both.stdout.index(answer)
    assert both.stdout.count(answer) == 1


def test_a_comparison_of_an_exit_has_no_gain_in_prefill(checkpoint, guide, image):
    common = ("run", image, "-p", "what", "--model", checkpoint, "--compare", "--repeats", "1", *LENGTH)
    (line,) = as_json(*common, "--method", f"sgl:guide={guide},exit_threshold=0")
    comparison = line["comparison"]
    assert comparison["prefill_speedup"] is comparison["decode_speedup"] is None
    assert comparison["total_speedup"] > 0
    assert comparison["trimmed"]["kv_bytes"] == 0


@pytest.mark.parametrize(
    ("method", "code", "says"),
    [
        ("sgl", 2, "as in sgl:guide=reference-small"),
        ("sgl:guide=./nowhere", 1, "no model directory './nowhere'"),
        ("sgl:guide=reference-smal", 1, "did you mean 'reference-small'?"),
        ("sgl:guide=reference-small", 2, "the guide model has an image size of 144 pixels, the large model 16"),
        ("sgl:guide=x,keep=1.5", 2, "keep=1.5: give a share"),
        ("sgl:guide=x,exit_threshold=high", 2, "exit_threshold=high: must be a number or none"),
    ],
)
@pytest.mark.parametrize("command", ["run", "eval"])
def test_guides_that_do_not_fit_fail_in_one_line(checkpoint, image, tmp_path, command, method, code, says):
    out = tmp_path / "out"
    arguments = (image, "-p", "what") if command == "run" else ("--out", str(out), "--tasks", "color")
    result = vistrim(command, *arguments, "--model", checkpoint, "--method", method)
    assert result.exit_code == code
    assert says in error_line(result)
    assert not out.exists()
