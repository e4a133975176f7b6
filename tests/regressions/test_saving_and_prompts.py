"""Saving and copying a trimmed model, and prompts in other encodings."""

import copy
import io
import os
import pickle
import sys

import pytest
import torch

from tests import tiny
from tests.methods.every_method import built
from vistrim import FastV, UnsupportedModelError, trim
from vistrim.cli import prompts
from vistrim.cli.error_lines import WrongUsageError

WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "torch.save": lambda part: torch.save(part, io.BytesIO()),
}


def touched(model) -> dict[str, set]:
    """State of each module, to find those on which the engine has left something."""
    return {name: set(vars(module)) | set(map(id, hooks(module))) for name, module in model.named_modules()}


def hooks(module) -> list:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["fastv", "quecc", "yopo"])
def test_no_part_of_a_trimmed_model_can_be_copied(name, way):
    model = tiny.build()
    before = touched(model)
    with trim(model, built(name)):
        after = touched(model)
        changed = [part for part, state in after.items() if state != before[part]]
        changed += [f"model.language_model.layers.{i}.self_attn" for i in range(tiny.DEPTH)]
        assert "" in changed
        for part in changed:
            with pytest.raises(UnsupportedModelError, match="detach it first"):
                WAYS[way](model.get_submodule(part))
    WAYS[way](model)


def test_weights_of_a_trimmed_model_can_be_saved(tmp_path):
    model = tiny.build()
    with trim(model, FastV()):
        torch.save(model.state_dict(), tmp_path / "weights.pt")
        model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "config.json").exists()


def test_a_prompt_in_another_encoding():
    with pytest.raises(WrongUsageError, match=rf"the prompt is not valid {sys.getfilesystemencoding()}"):
        prompts.read_prompts(os.fsdecode(b"caf\xe9"))
    assert prompts.read_prompts("café \U0001f600") == ["café \U0001f600"]


@pytest.mark.parametrize("handler", ["strict", "surrogateescape"])
def test_piped_prompts_in_another_encoding(monkeypatch, handler):
    """Python does not refuse such bytes everywhere: in the C locale it lets them through."""
    piped = io.TextIOWrapper(io.BytesIO(b"what\ncaf\xe9\n"), encoding="utf-8", errors=handler)
    monkeypatch.setattr(sys, "stdin", piped)
    with pytest.raises(WrongUsageError, match="not valid utf-8"):
        prompts.read_prompts("-")
