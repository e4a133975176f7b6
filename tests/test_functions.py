"""`vistrim.evaluate` and `vistrim.bench`: the commands as functions."""

import importlib
import json
import pkgutil

import pytest

import vistrim
from vistrim._utils.labels import UNTOUCHED
from vistrim.errors import ParameterError
from vistrim.prompting import format_prompts
from vistrim.reference.suites import questions

pytestmark = pytest.mark.usefixtures("few_objects")

METHODS = [vistrim.Uniform(keep=4), vistrim.ST3()]


@pytest.fixture(scope="module")
def loaded():
    return vistrim.load("reference-small")


def test_sub_packages_do_not_shadow_them():
    for module in pkgutil.iter_modules(vistrim.__path__, "vistrim."):
        importlib.import_module(module.name)
    assert callable(vistrim.evaluate)
    assert callable(vistrim.bench)
    with pytest.raises(AttributeError):
        vistrim.nothing  # noqa: B018


def test_evaluate(loaded, tmp_path, capfd):
    model, processor = loaded
    asked = questions("reference-small", "color,count", limit=2)
    found = vistrim.evaluate(model, processor, METHODS, asked, out=tmp_path, max_new_tokens=3)
    assert [row.label for row in found.rows] == [UNTOUCHED, *map(str, METHODS)]
    assert found.rows[0].groups["Short answers"].items == 4
    assert json.loads(json.dumps(found.to_dict()))["settings"]["questions"] == 4
    assert "Short answers: 4 items" in repr(found)
    assert found.failures == []
    samples = (tmp_path / "samples.jsonl").read_bytes()
    again = vistrim.evaluate(model, processor, {"few": METHODS[0]}, asked, out=tmp_path, max_new_tokens=3)
    assert again.rows[1].groups == found.rows[1].groups
    assert (tmp_path / "samples.jsonl").read_bytes() == samples
    # Quiet where standard error is no terminal.
    assert capfd.readouterr() == ("", "")
    for methods, error in ((METHODS[:1] * 2, ValueError), ([vistrim.PVTP(start_layer=99)], ParameterError)):
        with pytest.raises(error):
            vistrim.evaluate(model, processor, methods, asked)
    with pytest.raises(TypeError, match=r"write \[method\]"):
        vistrim.evaluate(model, processor, METHODS[0], asked)


def test_bench(loaded, tmp_path, capfd):
    model, processor = loaded
    (asked,) = questions("reference-small", "color", limit=1)
    inputs = dict(format_prompts(processor, [asked.prompt], [asked.images()]))
    config = model.generation_config
    found = vistrim.bench(model, METHODS, inputs, repeat=2, new_tokens=3, out=tmp_path)
    assert model.generation_config is config
    assert [row.label for row in found.rows] == [UNTOUCHED, *map(str, METHODS)]
    assert found.rows[0].rounds == 2
    assert found.rows[1].speedups["prefill"].limit > 1
    assert len(json.loads(json.dumps(found.to_dict()))["methods"][1]["runs"]) == 2
    assert "medians of 2 rounds" in repr(found)
    assert vistrim.bench(model, METHODS, inputs, repeat=2, new_tokens=3, out=tmp_path).runs == found.runs
    assert capfd.readouterr() == ("", "")
    for arguments in ((model, METHODS), ("reference-small", METHODS, inputs)):
        with pytest.raises(TypeError, match="inputs"):
            vistrim.bench(*arguments)
