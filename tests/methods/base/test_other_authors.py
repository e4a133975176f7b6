"""Methods that are written elsewhere: in a notebook, and in other distributions."""

import json
import sys
from dataclasses import dataclass

import pytest
import torch

import vistrim
from tests import tiny
from tests.cli.invoke import vistrim as command
from vistrim.methods import AttentionSchedule, ImageChoice, PerImage, register
from vistrim.methods.base import plugins, registry

MODULE = """
from dataclasses import dataclass
import torch
from vistrim.methods import ImageChoice, PerImage, register

@register
@dataclass(frozen=True)
class {cls}(PerImage):
    name = "{name}"
    step: int = 3

    def choose(self, image):
        return ImageChoice(torch.arange(0, image.n, self.step))
"""


@dataclass(frozen=True)
class EveryOther(PerImage):
    """As in a notebook: neither named nor registered."""

    def choose(self, image):
        return ImageChoice(torch.arange(0, image.n, 2))


class Halves(AttentionSchedule):
    def tokens_kept(self, n, layer, step, depth):
        return n if layer < 2 else n // 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts distributions on the path, as an installer would; nothing of them stays."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(plugins, "_loaded", set())
    monkeypatch.syspath_prepend(tmp_path)
    plugins.found.cache_clear()
    modules = []

    def install(distribution: str, source: str) -> None:
        module = distribution.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[vistrim.methods]\nany = {module}\n")
        plugins.found.cache_clear()

    yield install
    plugins.found.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


def test_a_method_of_a_notebook_needs_neither_name_nor_registration(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    assert (EveryOther.name, EveryOther.stages, EveryOther.summary, EveryOther.source) == (
        "every-other",
        ("input",),
        "",
        "",
    )
    assert Halves.stages == ("prefill", "decode")
    with pytest.raises(ValueError, match="EveryOther is not registered: pass an instance of it, or put @register"):
        vistrim.get_method("every-other")
    with pytest.raises(ValueError, match="no method called 'per-image': the methods are"):
        vistrim.get_method("per-image")
    model, n = tiny.shared(), tiny.TOKENS_PER_IMAGE
    for method, expected in ((EveryOther(), [n // 2] * 5), (Halves(), [n, n, n // 2, n // 2, n // 2])):
        with vistrim.trim(model, method) as run:
            tiny.generate(model, tiny.batch([tiny.sample()]), 2)
        assert [layer[0] for layer in run.report.visual_tokens_per_layer] == expected
        assert run.report.method == method.name
    # A cell that runs twice defines the class again.
    for _ in range(2):
        again = register(dataclass(frozen=True)(type("EveryOther", (EveryOther,), {"__module__": "__main__"})))
        assert type(vistrim.get_method("every-other")) is again
    assert vistrim.method_from_dict(again().to_dict()) == again()


@pytest.mark.slow
def test_vistrim_eval_runs_another_distributions_method(installed, tmp_path):
    installed("mine-for-vistrim", MODULE.format(cls="Mine", name="mine"))
    out = tmp_path / "out"
    asked = ("--tasks", "color", "--limit", "2", "--batch-size", "2", "--out", str(out))
    result = command("eval", "--model", "reference-small", "--method", "mine:step=2", *asked, "--json")
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)["methods"][1]
    assert row["method"] == "mine:step=2"
    assert "mine" in [info.name for info in vistrim.list_methods()]
    assert command("methods").exit_code == 0


def test_a_broken_distribution_does_not_break_the_others(installed):
    installed("broken-one", "raise RuntimeError('no luck')")
    installed("mine-for-vistrim", MODULE.format(cls="Mine", name="mine"))
    with pytest.warns(RuntimeWarning, match="distribution broken-one .*RuntimeError: no luck"):
        assert vistrim.get_method("mine", step=2).step == 2
    assert "mine" in [info.name for info in vistrim.list_methods()]


@pytest.mark.parametrize(("name", "owner"), [("st3", "ST3 of vistrim"), ("mine", "Mine of first-one")])
def test_a_name_that_is_taken_is_an_error_that_names_both(installed, name, owner):
    installed("first-one", MODULE.format(cls="Mine", name="mine"))
    installed("second-one", MODULE.format(cls="Other", name=name))
    # Each time, and whatever order they are found in.
    for ask in (vistrim.list_methods, lambda: vistrim.get_method("unknown"), vistrim.list_methods):
        with pytest.raises(ValueError, match=f"two methods are called '{name}'") as error:
            ask()
        assert owner in str(error.value)
        assert "Other of second-one" in str(error.value)
    assert vistrim.get_method("st3") == vistrim.ST3()
