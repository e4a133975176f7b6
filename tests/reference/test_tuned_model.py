"""A model that is shipped as a difference: right up to rounding, whole in the cache, or an error that names the fix."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from vistrim.errors import LoadError
from vistrim.tuned_model import FILE, WEIGHTS, assembled, read, rounded, tuned

LEVELS = 4


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Folders of a base and of a model tuned from it, their weights, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    base = {"same": draw(4, 4).bfloat16(), "tuned": draw(32, 32).bfloat16()}
    other = base | {"tuned": (base["tuned"].float() + 0.01 * draw(32, 32)).bfloat16()}
    whole, step = rounded(base["tuned"], other["tuned"], LEVELS)
    for name in ("base", "other"):
        (tmp_path / name / "vistrim").mkdir(parents=True)
        for file in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json"):
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "other" / "vistrim" / "part.json").write_text("[]")
    save_file(base, tmp_path / "base" / WEIGHTS)
    save_file({"tuned": whole}, tmp_path / "other" / FILE, {"tuned": repr(step)})
    return tmp_path / "other", tmp_path / "base", base, other


def test_weights_differ_by_less_than_the_rounding(shipped):
    folder, base, before, after = shipped
    found = load_file(assembled(folder, base) / WEIGHTS)
    assert torch.equal(found["same"], after["same"])
    change = (after["tuned"].double() - before["tuned"].double()).std()
    error = (found["tuned"].double() - after["tuned"].double()).abs()
    # Half a step, and half a unit in the last place of bf16.
    assert (error <= change / LEVELS / 2 + after["tuned"].double().abs() * 2**-8).all()
    assert error.std() < 0.3 * change
    same, steps = read(folder / FILE)
    assert torch.equal(found["tuned"], tuned(before, same, steps)["tuned"])


def test_the_folder_is_whole_made_once_and_made_again_for_other_files(shipped):
    folder, base, *_ = shipped
    there = assembled(folder, base)
    assert there.name == folder.name
    assert {path.name for path in there.rglob("*") if path.is_file()} == {
        path.name for path in folder.rglob("*") if path.is_file()
    } - {FILE} | {WEIGHTS}
    made = (there / WEIGHTS).stat().st_mtime_ns
    assert assembled(folder, base) == there
    assert (there / WEIGHTS).stat().st_mtime_ns == made
    (there / WEIGHTS).write_bytes(b"cut off")
    assert assembled(folder, base) == there
    assert load_file(there / WEIGHTS)
    (folder / "config.json").write_text('{"changed": true}')
    assert assembled(folder, base) != there
    assert not list(there.parent.parent.rglob("*.partial"))


def test_a_cache_that_cannot_be_written_is_an_error_with_the_fix(shipped):
    folder, base, *_ = shipped
    (folder.parent / "cache").write_text("a file")
    with pytest.raises(LoadError, match="set XDG_CACHE_HOME to a folder"):
        assembled(folder, base)


def test_differences_that_do_not_fit_are_rejected():
    base = torch.zeros(2000)
    with pytest.raises(ValueError, match="use fewer levels"):
        rounded(base, base.index_fill(0, torch.tensor([0]), 1.0), 4)
