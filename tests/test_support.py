"""What vistrim can do for a model is found out from its configuration alone."""

import json

import pytest
import torch
import transformers

import vistrim
from tests.cli.invoke import vistrim as command
from tests.families.refused import REFUSED
from tests.families.zoo import FAMILIES
from vistrim.architectures.tested import TESTED

SEVERAL = ["llava", "llava_next", "qwen2_5_vl", "gemma3", "internvl", "smolvlm", "llama4", "molmo2"]


def checkpoint(config, path):
    """A checkpoint without weights."""
    config.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("name", SEVERAL)
def test_methods_run_on_the_model_as_they_are_said_to(name, tmp_path):
    family = FAMILIES[name]
    said = vistrim.describe_support(checkpoint(family.config(), tmp_path))
    model = family.build()
    model.name_or_path = said.model
    assert said.tested
    assert not said.reason
    assert said.architecture == type(model).__name__
    assert [method.name for method in said.methods] == [info.name for info in vistrim.list_methods()]
    for found in said.methods:
        method = vistrim.get_method(found.name, **found.parameters)
        if found.works:
            vistrim.trim(model, method)
        else:
            with pytest.raises((vistrim.UnsupportedModelError, ValueError)) as error:
                vistrim.trim(model, method)
            assert str(error.value) == found.reason


def test_facts(tmp_path):
    said = vistrim.describe_support(checkpoint(FAMILIES["qwen2_5_vl"].config(), tmp_path))
    assert said.rope_axes == 3
    assert said.modalities == ("image", "video")
    assert said.grid is None
    assert said.reads_tower
    by_name = {method.name: method for method in said.methods}
    assert by_name["st3"].works
    assert by_name["fastervlm"].parameters == {"positions": "original"}
    gemma = vistrim.describe_support(checkpoint(FAMILIES["gemma3"].config(), tmp_path / "gemma"))
    assert gemma.windows == (2, 16)


def test_no_weights_are_made(tmp_path):
    """A model of 400 billion parameters is described on any machine."""
    said = vistrim.describe_support(checkpoint(transformers.Llama4Config(), tmp_path))
    assert said.layers == 48
    assert said.heads == 40


@pytest.mark.parametrize("name", ["mllama", "qwen3_5", "florence2"])
def test_refused_models_say_why(name, tmp_path):
    refused = REFUSED[name]
    said = vistrim.describe_support(checkpoint(refused.config(), tmp_path))
    with pytest.raises(vistrim.UnsupportedModelError) as error:
        vistrim.trim(refused.build(), vistrim.ST3())
    assert said.reason == str(error.value)
    assert said.methods == ()
    shown = command("methods", "--model", str(tmp_path))
    assert shown.exit_code == 1
    assert "cannot be trimmed" in shown.stdout


def test_command(tmp_path):
    path = checkpoint(FAMILIES["qwen2_vl"].config(), tmp_path)
    shown = command("methods", "--model", path)
    assert shown.exit_code == 0
    assert "Qwen2VLForConditionalGeneration" in shown.stdout
    assert "positions=original" in shown.stdout
    found = json.loads(command("methods", "--model", path, "--json").stdout)
    assert found["rope_axes"] == 3
    assert {method["name"] for method in found["methods"]} == {info.name for info in vistrim.list_methods()}


def test_command_on_a_reference_model():
    found = json.loads(command("methods", "--model", "reference", "--json").stdout)
    works = {method["name"]: method["works"] for method in found["methods"]}
    # What was trained for it comes with it; a guide has to be named.
    assert works["dyvte"]
    assert not works["sgl"]


@pytest.mark.parametrize(("model", "says"), [("no/such/folder", "no model directory"), ("refrence", "did you mean")])
def test_a_model_that_is_not_there(model, says):
    with pytest.raises(vistrim.LoadError, match=says):
        vistrim.describe_support(model)


def test_tested_classes_are_those_of_the_tiny_models():
    with torch.device("meta"):
        make = transformers.AutoModelForImageTextToText.from_config
        classes = {type(make(family.config())).__name__ for family in FAMILIES.values()}
    assert classes == TESTED


def test_a_class_that_was_not_tested_is_reported(monkeypatch):
    monkeypatch.setattr("vistrim.architectures.discovery.TESTED", frozenset())
    family = FAMILIES["llava"]
    model = family.build()
    with vistrim.trim(model, vistrim.FastV()) as run:
        model.generate(**family.batch([family.sample()]), max_new_tokens=2)
    assert any("not among the models that it was tested with" in warning for warning in run.report.warnings)
