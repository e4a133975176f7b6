"""Both transformers releases in the range work alike, and any other is named instead of blamed on the model."""

import re
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from transformers.cache_utils import DynamicCache

import vistrim
from tests import tiny
from tests.cli.invoke import vistrim as invoke
from vistrim._utils import releases as tested
from vistrim.architectures import discover
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.engine import releases
from vistrim.engine.releases import CACHE

ROOT = Path(__file__).parents[2]
METHOD = vistrim.ST3(start_layer=1, stride=1)
NAMES = sorted({CACHE, "past_key_values"})
"""Names by which users of this release may pass a cache."""


def requirements(text: str) -> dict[str, str]:
    """Package to version range, of a list in pyproject.toml or a file of constraints."""
    return dict(re.findall(r'^\s*"?([\w-]+)(?:\[[\w,]+\])?((?:[<>=!]=?[\d.]+,?)+)', text, flags=re.MULTILINE))


def test_pyproject_declares_the_range_that_is_checked():
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{tested.REQUIREMENT}"' in declared


def test_the_newest_release_and_the_oldest_are_installed_for_the_tests():
    for file, release in (("constraints.txt", tested.NEWEST), ("constraints-oldest.txt", tested.OLDEST)):
        pinned = requirements((ROOT / file).read_text(encoding="utf-8"))["transformers"]
        assert tested.release(pinned.removeprefix("==")) == release


def test_lower_bounds_are_the_oldest_environment():
    declared = requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = requirements((ROOT / "constraints-oldest.txt").read_text(encoding="utf-8"))
    assert declared.keys() == oldest.keys()
    for package, pinned in oldest.items():
        bound = declared[package].split(",")[0].removeprefix(">=")
        assert re.fullmatch(rf"=={re.escape(bound)}(\.0)*", pinned), package


@pytest.mark.parametrize(
    ("version", "numbers"), [("5.24.0", (5, 24)), ("5.24.0.dev0", (5, 24)), ("5.9rc1", (5, 9)), ("unknown", (0, 0))]
)
def test_reads_versions(version, numbers):
    assert tested.release(version) == numbers


@pytest.mark.parametrize("version", ["5.23.0", "5.23.7", "5.24.0", "5.24.1"])
def test_any_patch_of_a_tested_release_is_accepted(version, monkeypatch):
    monkeypatch.setattr(transformers, "__version__", version)
    tested.check_release()


@pytest.mark.parametrize("version", ["4.57.1", "5.9.0", "5.22.2", "5.25.0", "6.0.0"])
class TestOutsideTheRange:
    @pytest.fixture(autouse=True)
    def installed(self, version, monkeypatch):
        monkeypatch.setattr(transformers, "__version__", version)

    def said_in(self, message: str, version: str) -> bool:
        told = f"transformers {version} is installed" in message and "5.23 to 5.24" in message
        return told and "pip install 'transformers>=5.23,<5.25'" in message

    def test_trim_names_the_release(self, version):
        with pytest.raises(vistrim.UnsupportedReleaseError) as error:
            vistrim.trim(tiny.shared(), METHOD)
        assert self.said_in(str(error.value), version)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("command", ["run", "methods", "eval", "bench", "calibrate"])
    def test_commands_name_the_release_in_one_line(self, version, command):
        result = invoke(command)
        assert result.exit_code == 1
        assert self.said_in(result.stderr, version)
        assert result.stderr.count("\n") == 1

    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_help_and_version_remain(self, version, option):
        assert invoke(option).exit_code == 0


def test_a_model_that_this_release_cannot_run_is_refused_for_that_reason(monkeypatch):
    monkeypatch.setattr(releases, "FAULTS", {(transformers.__version__, "llava"): "it fails"})
    with pytest.raises(vistrim.UnsupportedModelError, match=r"itself cannot run llava, it fails: pip install"):
        vistrim.trim(tiny.shared(), METHOD)


@pytest.mark.parametrize("name", NAMES)
class TestAnyNameOfTheCache:
    """transformers 5.24 takes the former name, too; so does a model that is being trimmed, and warns of nothing."""

    @pytest.fixture(autouse=True)
    def no_warning_is_ours(self):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", module=r"vistrim\b")
            yield

    def test_generate_uses_the_given_cache(self, name):
        model, inputs = tiny.shared(), tiny.batch([tiny.sample()])
        with vistrim.trim(model, METHOD):
            without = tiny.generate(model, inputs)
            cache = DynamicCache()
            given = tiny.generate(model, inputs, **{name: cache})
        assert given[CACHE] is cache
        assert torch.equal(given.sequences, without.sequences)
        assert cache.layers[-1].held == without[CACHE].layers[-1].held

    def test_a_second_turn(self, name):
        model, first = tiny.shared(), tiny.batch([tiny.sample()])
        more = torch.tensor([[7, 8, 9]])
        with vistrim.trim(model, METHOD) as run:
            turns = []
            for used in (CACHE, name):
                output = tiny.generate(model, first)
                turn = tiny.follow_up(output, first, more)
                turn[used] = turn.pop(CACHE)
                turns.append(tiny.generate(model, turn))
            assert len(run.reports) == 4
        assert torch.equal(tiny.logits(turns[0]), tiny.logits(turns[1]))

    @pytest.mark.parametrize("part", ["model", "base", "decoder"])
    def test_forward_passes(self, name, part):
        model, inputs = tiny.shared(), tiny.batch([tiny.sample()])
        token = torch.tensor([[7]])
        spec = discover(model)
        called = {"model": model, "base": spec.base, "decoder": spec.decoder}[part]
        with torch.no_grad(), vistrim.trim(model, METHOD):
            outputs = []
            for used in (CACHE, name):
                cache = model(**inputs, use_cache=True)[CACHE]
                output = called(input_ids=token, **{used: cache})
                assert output[CACHE] is cache
                outputs.append(output[0])
        assert torch.equal(*outputs)

    def test_static_caches_are_refused(self, name):
        model, inputs = tiny.shared(), tiny.batch([tiny.sample()])
        cache = transformers.StaticCache(config=model.config, max_cache_len=64)
        with (
            vistrim.trim(model, METHOD),
            pytest.raises(vistrim.UnsupportedGenerationError, match="StaticLayer"),
        ):
            tiny.generate(model, inputs, **{name: cache})


def test_the_present_name_counts_where_both_are_given(monkeypatch):
    monkeypatch.setattr(releases, "CACHE", "cache")
    monkeypatch.setattr(releases, "_FORMER_NAMES", ("past_key_values",))
    assert releases.with_cache_renamed({"past_key_values": 1, "use_cache": True}) == {"cache": 1, "use_cache": True}
    assert releases.with_cache_renamed({"past_key_values": 1, "cache": 2}) == {"cache": 2}


def test_attention_may_hand_its_arguments_to_the_cache():
    """As in 5.24: ``cache.update(..., kwargs=...)``."""
    model, inputs = tiny.shared(), tiny.batch([tiny.sample()])
    with torch.no_grad(), vistrim.trim(model, METHOD):
        cache = model(**inputs, use_cache=True)[CACHE]
    untrimmed = next(i for i, layer in enumerate(cache.layers) if not layer.is_trimmed)
    layer = cache.layers[untrimmed]
    before, new = layer.get_seq_length(), torch.zeros_like(layer.keys[:, :, :1])
    keys, _ = cache.update(new, new, untrimmed, kwargs={"position_ids": None})
    assert keys.shape[-2] == before + 1


@pytest.mark.parametrize("text", tiny.TEXTS)
def test_a_trimmed_cache_can_be_cropped_by_the_generated_tokens(text):
    model, inputs = tiny.shared(text), tiny.batch([tiny.sample()])
    with vistrim.trim(model, METHOD):
        cache = tiny.generate(model, inputs, 4)[CACHE]
        assert cache.is_croppable
        held, length = [layer.stored for layer in cache.layers], cache.get_seq_length()
        cache.crop(-2)
        assert cache.get_seq_length() == length - 2
        assert [layer.stored for layer in cache.layers] == [n - 2 for n in held]
        with pytest.raises(vistrim.UnsupportedGenerationError, match="cannot be cropped into its images"):
            cache.crop(-(length - 4))


def test_generating_in_training_mode_with_recomputed_layers_is_as_untrimmed():
    """5.24 recomputes no layers in a pass without a gradient, and so keeps the cache; 5.23 drops it."""
    model, inputs = tiny.build(), tiny.batch([tiny.sample()])
    model.train()
    model.activation_checkpointing_enable()
    expected = tiny.generate(model, inputs)
    with vistrim.trim(model, KeepEverything()):
        output = tiny.generate(model, inputs)
    assert torch.equal(tiny.logits(output), tiny.logits(expected))
    assert output[CACHE].get_seq_length() == expected[CACHE].get_seq_length()
