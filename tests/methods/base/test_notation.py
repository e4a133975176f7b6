"""Methods as text and plain data: round trips."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

import vistrim
from tests import guides, tiny
from vistrim.errors import MethodError
from vistrim.methods import (
    PVTP,
    SGL,
    ST3,
    VTA,
    FasterVLM,
    GSearch,
    Method,
    NamedModel,
    PerImage,
    Positions,
    PyramidDrop,
    Random,
    SparseVLM,
    Uniform,
    VisPruner,
    register,
)
from vistrim.methods.base import registry
from vistrim.methods.base.method import DecodeRows
from vistrim.methods.base.method_file import NAME
from vistrim.methods.base.parameter_text import parameter_hints

PATHS = (
    "a b.json",
    "a,b+c.json",
    'say "x".json',
    r"C:\folder\x.json",
    "[1].json",
    " edge ",
    "None",
    "a:b=c",
    "/a/é.json",
)
CHANGED = {
    int: 7,
    float: 0.1 + 0.2,
    str: "some where/a, b.json",
    tuple[int, ...]: (1, 2, 3),
    tuple[float, ...]: (1 / 3, 1e-1, 0.05),
    tuple[int | float, ...]: (3, 2, 1),
    NamedModel: NamedModel("models/a+b, c"),
    Positions: "original",
    DecodeRows: "prompt",
    float | tuple[float, ...]: 0.3,
}


@dataclass(frozen=True)
class Restore(PerImage):
    """A method with parameters of every type."""

    selector: Method = field(default_factory=VisPruner)
    several: tuple[Method, ...] = ()
    names: tuple[str, ...] = ("a/b", "1")
    pair: tuple[int, float] = (1, 2.0)
    file: Path | None = None
    mode: Literal["1", "two"] = "1"
    center: bool = False
    keep: int | float | str = 1.0
    anything: Any = "2"

    def choose(self, image):
        raise NotImplementedError


@pytest.fixture
def restore(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(Restore, "_registered", None)
    return register(Restore)


def assert_written(method):
    as_text, as_data = str(method), json.loads(json.dumps(method.to_dict()))
    assert as_data == {"method": as_text}
    read = vistrim.method_from_dict(as_data)
    assert read == method
    assert type(read) is type(method)


def variants(name):
    """The method with each parameter changed alone, wherever a value of its type is in range."""
    method = vistrim.get_method(name)
    yield method
    for parameter in parameter_hints(type(method)):
        for value in CHANGED.values():
            try:
                changed = replace(method, **{parameter: value})
                changed.to_dict()
            except (ValueError, TypeError, AttributeError, MethodError):
                continue
            yield changed


def test_every_method_is_read_back_as_it_was():
    changed = set()
    for info in vistrim.list_methods():
        for method in variants(info.name):
            assert_written(method)
            given = info.parameters.items()
            changed |= {(info.name, name) for name, default in given if getattr(method, name) != default}
    parameters = {(info.name, parameter) for info in vistrim.list_methods() for parameter in info.parameters}
    # What has to fit other parameters, or is one of few words, is below.
    assert len(parameters - changed) <= 20, parameters - changed
    for method in (
        ST3.preset("compact"),
        ST3(schedule="a, b=c.json", mean_keep=0.25),
        PyramidDrop((1, 9), (1 / 3, 0.1), "original"),
        SparseVLM(variant="plus", layers=(1, 2), counts=(0.5, 0.25)),
        VTA("exponential", floor=1e-17),
        SGL(NamedModel("a, b/c"), exit_threshold=1.0),
        vistrim.get_method("yopo", window=5, heads="some, where.safetensors", layer=None, normalize="all"),
        vistrim.compose(FasterVLM(0.5), PVTP(), VTA(horizon=64, interval=1)),
        vistrim.compose(vistrim.compose(FasterVLM(2), PVTP()), "vta"),
        *map(GSearch, PATHS),
    ):
        assert_written(method)


def test_methods_nest_in_brackets(restore):
    inner = vistrim.compose(VisPruner(0.5), GSearch("a, [b]+c.json"))
    for method in (
        Restore(),
        Restore(selector=inner, several=(Random(), inner, Restore(Uniform(3)))),
        Restore(names=("", "none", "a,b", "1/2", '"'), pair=(3, 1.0), center=True),
        Restore(keep="1.0", anything=1, mode="two"),
        Restore(keep=1, anything=None, file=Path("a b/c,d")),
        Restore(several=(Uniform(),), names=("x",), keep="all", anything=True),
        vistrim.compose(Restore(selector=inner), PVTP()),
    ):
        assert_written(method)
    assert vistrim.trim(tiny.shared(), "restore:selector=[vispruner:keep=64]").method == Restore(VisPruner(64))
    with pytest.raises(ValueError, match="a method in square brackets"):
        vistrim.method_from_dict({"method": "restore:selector=vispruner"})
    with pytest.raises(ValueError, match="did you mean 'vispruner'"):
        vistrim.method_from_dict({"method": "restore:selector=[vispruned]"})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("st3", 'give {"method"'),
        ({"method": "st3", "keep": 1}, "no 'keep': the keys are method"),
        ({}, 'key "method"'),
        ({"method": 3}, 'key "method"'),
        ({"method": "st33"}, "did you mean 'st3'"),
        ({"method": "st3:strid=2"}, "did you mean 'stride'"),
        ({"method": "gsearch:schedule=[a"}, "bracket is not closed"),
        ({"method": "gsearch:schedule=a]"}, "was not opened"),
        ({"method": 'gsearch:schedule="a'}, "quote is not closed"),
    ],
)
def test_invalid_notation_is_refused(values, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        vistrim.method_from_dict(values)


def test_trim_and_compose_take_the_notation():
    run = vistrim.trim(tiny.shared(), "uniform:keep=0.5+st3:start_layer=1")
    assert run.method == vistrim.compose("uniform", ST3(start_layer=1))
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        vistrim.trim(tiny.shared(), "uniforn")


def test_methods_without_a_notation_print_and_say_so():
    method = SGL(guides.shared())
    assert str(method).startswith("sgl:guide=")
    for unwritten in (method, vistrim.compose(method, VTA())):
        with pytest.raises(MethodError, match=r"guide holds a LlavaForConditionalGeneration.*sgl:guide=NAME"):
            unwritten.to_dict()
    with pytest.raises(MethodError, match="heads holds a tuple"):
        vistrim.get_method("yopo", heads=((True, False),)).to_dict()
    with pytest.raises(MethodError, match="Restore is not registered"):
        Restore().to_dict()


def test_a_method_is_saved_beside_a_checkpoint(tmp_path):
    folder = tmp_path / "my checkpoint"
    method = vistrim.compose(FasterVLM(0.1 + 0.2), ST3(stride=2))
    method.save(folder)
    assert vistrim.load_method(folder) == method
    ST3().save(str(folder))
    assert vistrim.load_method(str(folder)) == ST3()
    with pytest.raises(MethodError):
        SGL(guides.shared()).save(folder)
    assert vistrim.load_method(folder) == ST3()
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be read \(No such file"),
        ("{", "or is damaged"),
        ("[]", "is no method's file"),
        ('{"method": "st3"}', "is no method's file"),
        ('{"version": 2, "method": "st3"}', "has version 2, and this vistrim reads version 1: upgrade"),
        ('{"version": 1, "method": "st4"}', "the method of .*did you mean 'st3'"),
        ('{"version": 1, "method": "st3", "more": 1}', "no 'more'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    if content is not None:
        (tmp_path / NAME).write_text(content)
    with pytest.raises(ValueError, match=says):
        vistrim.load_method(tmp_path)
