"""Support determined from a config agrees with trimming the model."""

import dataclasses
import json

import pytest
import torch
import transformers

import vistrim
from tests import tiny
from tests.cli import checkpoint as builder
from tests.families.depth import WHOLE, slow_beside
from tests.families.zoo import EVERY, FAMILIES, shared
from vistrim import LoadError, UnsupportedModelError, describe_support, get_method, list_methods
from vistrim.architectures import discover
from vistrim.architectures.tested import TESTED
from vistrim.engine.report import recorder


@pytest.mark.parametrize("name", slow_beside(WHOLE, FAMILIES))
def test_it_agrees_with_the_model(name):
    family, model = FAMILIES[name], shared(name)
    config = family.config()
    before = config.to_dict()
    found, spec = describe_support(config), discover(model)
    assert config.to_dict() == before
    assert (found.model_type, found.tested) == (model.config.model_type, True)
    assert found.layers == len(spec.layers)
    assert {"image"} | ({"video"} if family.has_video and name != "internvl" else set()) <= set(found.modalities)
    assert (found.grid, found.rope_axes) == (spec.images.grid, spec.rope_axes)
    assert found.reads_tower == (spec.images.tower is not None)
    cache = transformers.DynamicCache(config=spec.decoder.config).layers
    assert [window is not None for window in found.windows] == [layer.is_sliding for layer in cache]
    for method in found.methods:
        refusal = None
        try:
            vistrim.trim(model, get_method(method.name))
        except UnsupportedModelError as error:
            refusal = error
        except ValueError as error:
            refusal = error
        assert (method.runs == "yes") == (refusal is None)
        assert bool(method.reason) == (refusal is not None)
        assert "\n" not in method.reason
        if method.runs == "no":
            # What the model lacks is said first, also where trimming first asks for a file.
            assert isinstance(refusal, UnsupportedModelError) or "file" in str(refusal)


def test_every_method_is_there():
    found = describe_support(tiny.config())
    assert [method.name for method in found.methods] == [info.name for info in list_methods()]
    by_name = {method.name: method for method in found.methods}
    assert by_name["st3"].runs == "yes"
    assert by_name["sgl"].runs == "needs"
    assert "guide" in by_name["sgl"].reason
    assert "schedule" in by_name["gsearch"].reason
    assert "file" in by_name["dyvte"].reason


def test_methods_that_read_the_tower_are_refused_where_it_is_unknown():
    by_name = {method.name: method for method in describe_support(FAMILIES["fuyu"].config()).methods}
    for name in ("fastervlm", "vispruner", "vtc-cls", "hybrid", "quecc"):
        assert by_name[name].runs == "no"
        assert "vision tower" in by_name[name].reason
    assert by_name["pool"].runs == "no"
    assert by_name["pvtp"].runs == "yes"


def test_a_model_larger_than_any_memory():
    """Its 70 billion weights would not fit; nothing of them is made."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    found = describe_support(transformers.Qwen2_5_VLConfig(text_config={"rope_parameters": rope}))
    assert (found.layers, found.hidden, found.heads, found.kv_heads) == (80, 8192, 64, 8)
    assert found.rope_axes == 3
    by_name = {method.name: method for method in found.methods}
    assert by_name["fastervlm"].runs == "needs"
    assert "positions" in by_name["fastervlm"].reason


def test_a_folder_needs_no_weights_and_is_searched_for_files(tmp_path):
    builder.save(tmp_path / "tiny-llava")
    (tmp_path / "tiny-llava" / "model.safetensors").unlink()
    found = describe_support(tmp_path / "tiny-llava")
    assert found.grid == (4, 4)
    assert "tiny-llava" in found.model
    assert "tiny-llava" in {method.name: method for method in found.methods}["dyvte"].reason


def test_the_reference_models_have_their_shipped_parts():
    runs = {method.name: method.runs for method in describe_support("reference").methods}
    assert runs["dyvte"] == "yes"
    assert runs["quecc"] == "needs"
    assert {m.name: m.runs for m in describe_support("reference-quecc-16").methods}["quecc"] == "yes"


def test_models_that_cannot_be_loaded(tmp_path):
    with pytest.raises(LoadError, match="no model directory"):
        describe_support(str(tmp_path / "missing"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(LoadError, match="does not answer questions about images"):
        describe_support(tmp_path)
    broken = tiny.config()
    broken.text_config.num_attention_heads = 0
    with pytest.raises(LoadError, match="cannot build a llava model"):
        describe_support(broken)
    with pytest.raises(LoadError, match="cannot build a llama model"):
        describe_support(transformers.LlamaConfig())


def test_tested_types_are_those_of_the_tests():
    types = {name: family.config().model_type for name, family in EVERY.items()}
    assert list(TESTED) == sorted(set(types.values()))
    # By which those are left out that a release of transformers cannot run.
    assert all(name.partition("-")[0] == model_type for name, model_type in types.items())


def test_reports_of_untested_types_say_so(monkeypatch):
    inputs = tiny.batch([tiny.sample(1, 9)])
    with vistrim.trim(tiny.shared(), vistrim.PVTP(1, 2, 0.5)) as run:
        tiny.generate(tiny.shared(), inputs, 2)
        assert not any("tested families" in warning for warning in run.report.warnings)
        monkeypatch.setattr(recorder, "TESTED", ("qwen2_vl",))
        assert sum("llava is not in vistrim's tested families" in w for w in run.report.warnings) == 1


def test_it_is_plain_data():
    found = describe_support(tiny.config())
    assert json.loads(json.dumps(dataclasses.asdict(found)))["layers"] == tiny.DEPTH
    assert not any(isinstance(value, torch.Tensor) for value in vars(found).values())
