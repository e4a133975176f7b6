"""Messages name the missing packages of a processor, and the command that installs them."""

import json

import pytest
from transformers import AutoProcessor

import vistrim
from tests.cli.invoke import vistrim as command
from tests.families.zoo import FAMILIES
from vistrim import processor_packages
from vistrim.errors import LoadError


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(processor_packages, "_installed", lambda package: False)


@pytest.mark.parametrize(
    ("model_type", "needed"),
    [
        ("llava", ()),
        ("paligemma", ()),
        ("idefics3", ()),
        ("qwen2_5_vl", ("torchvision",)),
        ("internvl", ("torchvision",)),
        ("cohere2_vision", ("torchvision",)),
        ("llama4", ("torchvision",)),
        ("smolvlm", ("torchvision", "num2words")),
        ("no such family", ()),
    ],
)
def test_packages_of_families(nothing_installed, model_type, needed):
    assert processor_packages.missing_packages(model_type) == needed


def test_installed_packages_are_not_missing(monkeypatch):
    monkeypatch.setattr(processor_packages, "_installed", lambda package: package == "torchvision")
    assert processor_packages.missing_packages("smolvlm") == ("num2words",)


def test_the_error_names_the_package_and_the_extra(nothing_installed, monkeypatch, checkpoint):
    def fail(*_, **__):
        raise ImportError("PixtralProcessor requires the Torchvision library but it was not found in your environment.")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", fail)
    with pytest.raises(LoadError, match=r"needs torchvision: run `pip install 'vistrim\[processors\]'`"):
        vistrim.load(checkpoint)


def test_the_methods_command_names_missing_packages(nothing_installed, tmp_path):
    FAMILIES["qwen2_5_vl"].config().save_pretrained(tmp_path)
    result = command("methods", "--model", str(tmp_path))
    assert "needs torchvision: pip install 'vistrim[processors]'" in " ".join(result.stdout.replace("│", " ").split())
    result = command("methods", "--model", str(tmp_path), "--json")
    assert json.loads(result.stdout)["model"]["missing_packages"] == ["torchvision"]
