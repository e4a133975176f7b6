"""Bad input ends in one line on standard error that names the fix, and in exit code 1 or 2."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlavaForConditionalGeneration

from tests.cli import checkpoint as builder
from tests.cli.invoke import error_line, vistrim
from tests.families.refused import REFUSED
from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.prompts import read_prompts

FAILED, WRONG_USAGE = 1, 2


def changed(checkpoint: str, to: Path, file: str, **values) -> str:
    shutil.copytree(checkpoint, to)
    content = json.loads((to / file).read_text())
    (to / file).write_text(json.dumps(content | values))
    return str(to)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-p", "what", "--method", "stt3"], "did you mean 'st3'?"),
        (["-p", "what", "--set", "strid=3"], "did you mean 'stride'?"),
        (["-p", "what", "--set", "drop_per_cut=1.5"], "below 1"),
        (["-p", "what", "--set", "stride=few"], "must be a whole number"),
        (["-p", "what", "--set", "stride"], "write name=value"),
        (["-p", "what", "--preset", "huge"], "choose balanced, compact or annealed"),
        (["-p", ""], "the prompt is empty"),
        (["-p", " \t "], "the prompt is empty"),
        ([], "standard input has no prompt"),
        (["-p", "-"], "standard input has no prompt"),
        (["-p", "what", "--dtype", "float99"], "choose auto, float32"),
        (["-p", "what", "--device", "gpu"], "choose auto, cpu"),
        (["-p", "what", "--overlay", "kept.jpg"], "example --overlay kept.png"),
        (["-p", "what", "--overlay", ""], "example --overlay kept.png"),
        (["-p", "what", "--overlay", "no/such/place/kept.png"], "create it first"),
        (["-p", "what", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["-p", "what", "--max-new-tokens", "many"], "--max-new-tokens"),
        (["-p", "what", "--compare", "--repeats", "0"], "--repeats"),
        (["-p", "what", "--overlai", "a.png"], "See `vistrim run --help`"),
        (["-p"], "requires an argument"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_wrong_usage(image, arguments, says):
    result = vistrim("run", image, *arguments)
    assert result.exit_code == WRONG_USAGE
    assert says in error_line(result)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["run", "a.png", "--method", "st3", "-p", "what", "--method=fastv"],
            "compare several methods with `vistrim eval`",
        ),
        (["batch", "a.jsonl", "--out", "o", "--method", "st3", "--method", "fastv"], "--method is given 2 times"),
        (["eval", "--model", "a", "--model", "b", "--model", "c"], "--model is given 3 times"),
        (["calibrate", "yopo", "--out", "a", "--tasks", "color", "--tasks=count"], "--tasks is given 2 times"),
    ],
)
def test_what_a_command_takes_once_is_not_dropped_in_silence(arguments, says):
    result = vistrim(*arguments)
    assert result.exit_code == WRONG_USAGE
    assert says in error_line(result)


@pytest.mark.usefixtures("no_model")
def test_overlay_that_would_overwrite_an_image(image):
    result = vistrim("run", image, "-p", "what", "--overlay", image)
    assert result.exit_code == WRONG_USAGE
    assert "overwrite the image" in error_line(result)


@pytest.mark.parametrize("command", ["rnu", "--bogus"])
def test_unknown_command_or_option(command):
    result = vistrim(command)
    assert result.exit_code == WRONG_USAGE
    assert "See `vistrim --help`." in error_line(result)


@pytest.mark.usefixtures("no_model")
def test_no_image():
    result = vistrim("run", "-p", "what")
    assert result.exit_code == WRONG_USAGE
    assert "IMAGE" in error_line(result)


@pytest.mark.usefixtures("no_model")
def test_prompts_that_are_no_text(image):
    result = vistrim("run", image, stdin=b"\xff\xfe\x00")
    assert result.exit_code == WRONG_USAGE
    assert "standard input is not valid utf-8" in error_line(result)


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(WrongUsageError, match="there is no prompt"):
        read_prompts(None)


def _not_an_image(path):
    path.write_text("hello")


def _truncated(path):
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: None, "there is no image file"),
        (Path.mkdir, "is a directory"),
        (_not_an_image, "is not an image"),
        (_truncated, "is damaged or incomplete"),
        (lambda path: Image.new("RGB", (1, 500)).save(path), "strip of 1 x 500 pixels"),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_bad_images(image, tmp_path, prepare, says):
    path = tmp_path / "bad.png"
    prepare(path)
    result = vistrim("run", image, str(path), "-p", "what")
    assert result.exit_code == WRONG_USAGE
    assert says in error_line(result)
    assert str(path) in error_line(result)


@pytest.mark.parametrize("times", [1.5, 3])
@pytest.mark.usefixtures("no_model")
def test_decompression_bombs(tmp_path, monkeypatch, times):
    path = tmp_path / "bomb.png"
    Image.new("1", (2000, 1000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(2_000_000 / times))
    result = vistrim("run", str(path), "-p", "what")
    assert result.exit_code == WRONG_USAGE
    assert "scale it down" in error_line(result)


@pytest.mark.usefixtures("no_model")
def test_overlay_that_is_a_directory(image, tmp_path):
    (tmp_path / "kept.png").mkdir()
    result = vistrim("run", image, "-p", "what", "--overlay", str(tmp_path / "kept.png"))
    assert result.exit_code == WRONG_USAGE
    assert "choose another file" in error_line(result)


@pytest.mark.parametrize("model", ["/no/such/model", "./none", "refrence"])
def test_missing_model(image, model):
    result = vistrim("run", image, "-p", "what", "--model", model)
    assert result.exit_code == FAILED
    assert model in error_line(result)


@pytest.mark.parametrize("command", ["run", "methods", "batch", "bench", "analyze"])
def test_a_search_on_the_hub_is_announced(image, own, tmp_path, monkeypatch, command):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("vistrim.loading.AutoConfig.from_pretrained", unreachable)
    out = ("--out", str(tmp_path / "out"))
    arguments = {
        "run": (image, "-p", "what"),
        "batch": (str(own), *out),
        "bench": out,
        "analyze": ("--data", str(own), *out),
    }
    result = vistrim(command, *arguments.get(command, ()), "--model", "llava-hf/llava-1.5-7b-hf")
    first, second = result.stderr.splitlines()
    assert first == "looking for llava-hf/llava-1.5-7b-hf on the Hugging Face Hub, or in its cache on this machine"
    assert "no network" in second


def test_text_only_model(image, tmp_path):
    LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path / "text")
    result = vistrim("run", image, "-p", "what", "--model", str(tmp_path / "text"))
    assert result.exit_code == FAILED
    assert "is a llama model (LlamaForCausalLM)" in error_line(result)
    assert "use an image-text-to-text model" in error_line(result)


def test_damaged_model(image, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"garbage")
    result = vistrim("run", image, "-p", "what", "--model", str(tmp_path / "damaged"))
    assert result.exit_code == FAILED
    assert "download the checkpoint again" in error_line(result)


def test_model_that_the_engine_does_not_support(image, tmp_path):
    REFUSED["qwen3_5"].build().save_pretrained(tmp_path / "model")
    builder.build_processor().save_pretrained(tmp_path / "model")
    result = vistrim("run", image, "-p", "what", "--model", str(tmp_path / "model"))
    assert result.exit_code == FAILED
    assert "linear or sparse attention" in error_line(result)


def test_parameters_that_do_not_fit_the_model(image, checkpoint):
    result = vistrim("run", image, "-p", "what", "--model", checkpoint, "--set", "start_layer=5")
    assert result.exit_code == WRONG_USAGE
    assert "the model has 5 decoder layers" in error_line(result)


def test_too_many_images(image, checkpoint):
    result = vistrim("run", *[image] * 40, "-p", "what", "--model", checkpoint)
    assert result.exit_code == FAILED
    assert "the context of the model is 512 tokens: shorten the prompt or use fewer images" in error_line(result)


def test_prompt_longer_than_the_context(image, checkpoint):
    result = vistrim("run", image, "-p", "what " * 600, "--model", checkpoint)
    assert result.exit_code == FAILED
    assert "the context of the model is 512 tokens: shorten the prompt" in error_line(result)


def test_answer_longer_than_the_context(image, checkpoint):
    common = ("run", image, "-p", "what " * 480, "--model", checkpoint, "--max-new-tokens")
    result = vistrim(*common, "64")
    assert result.exit_code == FAILED
    fits = error_line(result).split("--max-new-tokens ")[1].split(",")[0]
    assert vistrim(*common, str(int(fits) + 1)).exit_code == FAILED
    assert vistrim(*common, fits).exit_code == 0


def test_prompt_with_the_placeholder_of_images(image, checkpoint):
    result = vistrim("run", image, "-p", "what is <image> ?", "--model", checkpoint)
    assert result.exit_code == WRONG_USAGE
    assert "remove it" in error_line(result)


def test_broken_chat_template(image, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "broken")
    (tmp_path / "broken" / "chat_template.jinja").write_text("{% for")
    result = vistrim("run", image, "-p", "what", "--model", str(tmp_path / "broken"))
    assert result.exit_code == FAILED
    assert "cannot format the prompt" in error_line(result)


def test_processor_that_does_not_fit_the_model(image, checkpoint, tmp_path):
    path = changed(checkpoint, tmp_path / "model", "processor_config.json", num_additional_image_tokens=0)
    result = vistrim("run", image, "-p", "what", "--model", path)
    assert result.exit_code == FAILED
    assert "tokens" in error_line(result)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate")],
)
def test_out_of_memory(image, checkpoint, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", fail)
    result = vistrim("run", image, "-p", "what", "--model", checkpoint)
    assert result.exit_code == FAILED
    assert "out of memory: use fewer images" in error_line(result)


def test_overlay_that_cannot_be_written(image, checkpoint, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    common = ("run", image, "-p", "what", "--model", checkpoint, "--json", "--max-new-tokens", "2")
    result = vistrim(*common, "--overlay", str(tmp_path / "kept.png"))
    assert result.exit_code == FAILED
    # The answer has been made and is not thrown away.
    assert isinstance(json.loads(result.stdout)["answer"], str)
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1


def test_interrupt(image, checkpoint, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", interrupt)
    result = vistrim("run", image, "-p", "what", "--model", checkpoint)
    assert result.exit_code == 130
    assert (result.stdout, result.stderr) == ("", "")


def test_a_later_prompt_that_fails_keeps_the_answers_before_it(image, checkpoint):
    result = vistrim("run", image, "--model", checkpoint, "--json", stdin="what\nwhat <image>\nis\n")
    assert result.exit_code == WRONG_USAGE
    assert len(result.stdout.splitlines()) == 1
    assert len(result.stderr.splitlines()) == 1


def test_a_mistake_of_ours_is_not_hidden(image, checkpoint, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(LlavaForConditionalGeneration, "generate", fail)
    with pytest.raises(RuntimeError, match="unexpected"):
        vistrim("run", image, "-p", "what", "--model", checkpoint)
