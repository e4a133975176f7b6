"""CONTRIBUTING.md: its files are there, and its example of a method works as it stands."""

import re
from pathlib import Path

from vistrim.methods import Method
from vistrim.methods.base import registry

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = {"src/vistrim/methods/center.py", "tests/methods/test_center.py"}


def test_the_example_of_a_method_passes_its_own_test(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    method, test = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    space = {"__name__": "center"}
    exec(method, space)
    assert issubclass(space["Center"], Method)
    exec(test, space)
    (run,) = (value for name, value in space.items() if name.startswith("test_"))
    run()


def test_the_files_that_it_names_are_there():
    named = set(re.findall(r"`((?:src|tests|training|studies|docs)/[\w./-]*)`", TEXT)) - EXAMPLE
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_lines_of_the_family_example_are_in_its_files():
    for line, file in (
        ('FAMILIES = (Family("fast_vlm", "FastVLM", _config, _sample),)', "tests/families/zoo/fast_vlm.py"),
        ('"fast_vlm": merged_patches.without_tower', "src/vistrim/architectures/families.py"),
        ('"fast_vlm"', "src/vistrim/architectures/tested.py"),
        ('"fast_vlm"', "tests/families/vision/test_grid_sizes.py"),
    ):
        assert line in TEXT
        assert line in (ROOT / file).read_text(encoding="utf-8")
