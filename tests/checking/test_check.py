"""`vistrim.check` passes on a model that is right, and each of its checks finds the fault that it is there for."""

import json

import pytest
import torch
from PIL import Image

import vistrim
from tests import tiny
from tests.cli.checkpoint import build_processor
from tests.cli.invoke import error_line
from tests.cli.invoke import vistrim as command
from vistrim._utils.environment import stamp
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.checking.check import WHILE_DECODING
from vistrim.checking.closeness import Tolerance, difference
from vistrim.checking.exactness import check_batch, check_bytes, check_keep_everything, check_removal
from vistrim.checking.restoring import changes, state_of
from vistrim.checking.results import CheckReport, Outcome
from vistrim.checking.subject import NotPossibleError, Subject
from vistrim.cli import check as cli_check
from vistrim.core.selection import keep_top
from vistrim.engine import describe
from vistrim.engine.passes import decode, layer_inputs

IMAGE = Image.linear_gradient("L").convert("RGB")
QUESTION = "what is this"


def subject(model=None) -> Subject:
    model = model or tiny.shared()
    return Subject(model, describe(model), build_processor(), IMAGE, QUESTION, 4)


def test_a_method_that_removes_something_where_it_should_not_is_found(monkeypatch):
    def drops_one(self, layer, tokens):
        return keep_top(tokens.scores, tokens.visual, [n - 1 for n in tokens.held])

    monkeypatch.setattr(KeepEverything, "select_prefill", drops_one)
    of = subject()
    status, detail, figures = check_keep_everything(of, of.generate(of.inputs))
    assert status == "failed"
    assert "logits differ" in detail
    assert figures["difference"] > 1e-3


def test_positions_shifted_by_one_are_found(monkeypatch):
    right = layer_inputs.compact_arguments
    monkeypatch.setattr(layer_inputs, "compact_arguments", lambda given, rows: right(given, (rows - 1).clamp(min=0)))
    status, detail, figures = check_removal(subject(), vistrim.PVTP())
    assert status == "failed"
    assert "pvtp: at most" in detail
    assert figures["difference"] > figures["tolerance"]


def test_one_entry_too_many_in_the_cache_is_found(monkeypatch):
    right = vistrim.ST3.decode_counts
    monkeypatch.setattr(
        vistrim.ST3, "decode_counts", lambda self, *given: tuple(n + 1 for n in right(self, *given) or ())
    )
    status, detail, _ = check_bytes(subject(), [WHILE_DECODING])
    assert status == "failed"
    assert "the plan is" in detail


def test_padding_that_leaks_is_found(monkeypatch):
    monkeypatch.setattr(decode, "decode_mask", lambda *_: None)
    status, _, figures = check_batch(subject(), WHILE_DECODING)
    assert status == "failed"
    assert figures["difference"] > figures["tolerance"]


def test_what_is_left_on_the_model_is_found():
    model = tiny.build()
    tiny.generate(model, tiny.batch([tiny.sample()]), 1)
    before = state_of(model)
    assert changes(before, state_of(model)) == []
    layer = model.get_decoder().layers[2]
    handle = layer.register_forward_hook(lambda *_: None)
    assert changes(before, state_of(model)) == ["model.language_model.layers.2: _forward_hooks"]
    handle.remove()
    model.generate = model.generate
    assert changes(before, state_of(model)) == ["model: generate"]
    del model.generate
    with torch.no_grad():
        layer.mlp.up_proj.weight[0, 0] += 1
    assert changes(before, state_of(model)) == ["model.language_model.layers.2.mlp.up_proj.weight: values"]


def test_what_the_model_cannot_do_is_no_failure():
    of = subject()
    with pytest.raises(NotPossibleError, match="5 decoder layers"):
        check_removal(of, vistrim.FastV(layer=9))
    with pytest.raises(NotPossibleError, match="removed nothing"):
        check_removal(of, vistrim.Uniform(keep=1.0))
    vars(of)["tolerance"] = Tolerance(torch.bfloat16, 0.06)
    with pytest.raises(NotPossibleError, match="differs from itself"):
        check_removal(of, vistrim.PVTP())
    vars(of)["tolerance"] = Tolerance(torch.float32, 0.04)
    assert of.tolerance.allowed == pytest.approx(0.2)
    assert check_removal(of, vistrim.PVTP())[0] == "passed"


def test_a_refused_model_and_a_busy_one_raise():
    model, processor = tiny.build(), build_processor()
    with vistrim.trim(model, vistrim.ST3()), pytest.raises(vistrim.UnsupportedModelError, match="already"):
        vistrim.check(model, processor)
    with pytest.raises(vistrim.UnsupportedModelError):
        vistrim.check(torch.nn.Linear(2, 2).eval(), processor)
    with pytest.raises(ValueError, match=r"model\.eval"):
        vistrim.check(model.train(), processor)


def test_difference_is_a_share_of_the_largest_value():
    expected = torch.tensor([1.0, -4.0, torch.finfo(torch.float32).min, float("inf")])
    assert difference(expected, expected) == 0
    found = expected.clone()
    found[0] += 1
    assert difference(found, expected) == 0.25
    assert difference(torch.full((4,), float("nan")), expected) == float("inf")


def test_the_command_passes_on_a_model_that_is_right(checkpoint, image, tmp_path):
    out, asked = tmp_path / "found", ("-p", QUESTION, "--image", image, "--new-tokens", "2")
    found = command("check", checkpoint, *asked, "--json", "--out", str(out))
    assert found.exit_code == 0, found.stdout
    data = json.loads(found.stdout)
    assert data["passed"]
    assert [o["name"] for o in data["outcomes"] if o["status"] != "passed"] == ["speed"]
    assert data["outcomes"][4]["figures"]["padding"] != [0, 0]
    assert data["model_type"] == "llava"
    assert data["environment"]["torch"] == torch.__version__
    assert data == json.loads((out / "check.json").read_text())
    assert "| a padded batch is what its samples are alone | passed |" in (out / "check.md").read_text()


def test_the_command_fails_where_a_check_does(checkpoint, monkeypatch):
    outcome = Outcome("restored", "the model is left as it was", "failed", "not as before: model: generate")
    report = CheckReport("M", "llava", "float32", "cpu", "sdpa", 9, 4, 2, (outcome,), stamp())
    monkeypatch.setattr(cli_check, "check", lambda *_, **__: report)
    found = command("check", checkpoint)
    assert found.exit_code == 1
    for text in (found.stdout, str(report)):
        assert "not as before" in text
        assert "1 failed" in text


def test_the_public_name_is_the_function():
    assert vistrim.check is vistrim.checking.check
    assert "check" in vistrim.__all__


def test_wrong_usage(no_model, tmp_path):
    result = command("check", "--image", str(tmp_path / "none.png"))
    assert result.exit_code == 2
    assert "no image file" in error_line(result)
