"""Imports at start-up, and the public names."""

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import vistrim

STARTS = """
import sys
import vistrim
dir(vistrim)
heavy = {"torch", "transformers"}
assert not heavy & set(sys.modules), "import vistrim"
from typer.testing import CliRunner
from vistrim.cli.app import app
groups = {"calibrate": ("gsearch", "psigmoid", "dyvte", "yopo")}
commands = [command.name or command.callback.__name__ for command in app.registered_commands]
commands = [[name] for name in commands] + [[name, inner] for name, all in groups.items() for inner in all]
for arguments in [["--version"], ["--help"], ["calibrate", "--help"], *([*command, "--help"] for command in commands)]:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.stderr)
    assert not heavy & set(sys.modules), arguments
assert CliRunner().invoke(app, ["methods"]).exit_code == 0
assert "transformers" not in sys.modules, "vistrim methods"
vistrim.trim, vistrim.analysis
"""


@pytest.mark.slow
def test_nothing_heavy_is_imported_before_it_is_needed():
    result = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


MISTAKES = """
import json, sys
from pathlib import Path
from PIL import Image
from typer.testing import CliRunner
from vistrim.cli.app import app

def refused(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2, (arguments, result.output)

Image.new("RGB", (8, 8)).save("a.png")
Path("own.jsonl").write_text(json.dumps({"image": "a.png", "prompt": "what", "answer": "w"}))
refused("run", "none.png", "-p", "what")
refused("run", "a.png", "-p", " ")
refused("run", "a.png", "-p", "what", "--overlay", "no/kept.png")
refused("check", "--image", "none.png")
refused("bench", "--out", "a.png")
for command in (["eval"], ["analyze"], ["batch", "own.jsonl"]):
    refused(*command, "--out", "a.png")
for command in (["eval", "--data"], ["bench", "--data"], ["analyze", "--data"], ["batch"]):
    refused(*command, "none.jsonl", "--out", "out")
assert "torch" not in sys.modules, "paths and prompts"
own = ["own.jsonl", "--out", "out"]
for command in (["run", "a.png", "-p", "what"], ["eval", "--data", *own], ["bench"], ["batch", *own]):
    refused(*command, "--method", "st4")
    refused(*command, "--budget", "half")
assert "transformers" not in sys.modules, "methods and budgets"
"""


@pytest.mark.slow
def test_mistakes_are_found_before_slow_imports(tmp_path):
    result = subprocess.run([sys.executable, "-c", MISTAKES], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_python_m_vistrim():
    result = subprocess.run([sys.executable, "-m", "vistrim", "--version"], capture_output=True, text=True)
    assert result.stdout == f"vistrim {vistrim.__version__}\n"


PACKAGES = ("vistrim", "vistrim.analysis", "vistrim.analysis.attention", "vistrim.checking", "vistrim.evaluation")
"""Those whose names are imported when they are asked for."""


def test_no_module_shadows_a_public_name():
    for name in PACKAGES:
        package = import_module(name)
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(package.__all__), name
        for public in package.__all__:
            assert not isinstance(getattr(package, public), ModuleType), public
    assert set(vistrim.__all__) <= set(dir(vistrim))
    assert vistrim.get_method("st3") == vistrim.ST3()


def test_type_checkers_see_the_names_that_there_are():
    for package in PACKAGES:
        module = import_module(package)
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                seen = {name.name: part.module for part in node.body for name in part.names}
        assert sorted(seen) == sorted(module.__all__)
        for name, home in seen.items():
            assert getattr(module, name) is getattr(import_module(home), name)


def test_the_public_names_are_all_there():
    import vistrim.methods

    assert all(hasattr(vistrim.methods, name) for name in vistrim.methods.__all__)
    assert not hasattr(vistrim, "no_such_name")
