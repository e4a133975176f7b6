import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import vistrim as library
from tests.cli import checkpoint as builder
from tests.cli.conftest import save_image
from tests.cli.invoke import vistrim
from vistrim.cli.app import app

pytestmark = pytest.mark.usefixtures("few_objects")

LENGTH = ("--max-new-tokens", "6")


def as_json(*arguments, **keywords):
    result = vistrim(*arguments, "--json", **keywords)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def generated(checkpoint, image, prompt, method=None) -> str:
    """The answer by hand."""
    model, processor = library.load(checkpoint)
    content = [{"type": "image", "image": Image.open(image)}, {"type": "text", "text": prompt}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    options = {"max_new_tokens": 6, "do_sample": False}
    if method is None:
        output = model.generate(**inputs, **options)
    else:
        with library.trim(model, method):
            output = model.generate(**inputs, **options)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_answer_and_report(checkpoint, image):
    result = vistrim("run", image, "-p", "what is this", "--model", checkpoint, *LENGTH)
    assert result.exit_code == 0
    assert result.stderr == ""
    answer, *report = result.stdout.splitlines()
    assert answer == generated(checkpoint, image, "what is this", library.ST3())
    assert "vistrim report" in report[1]
    assert any("st3" in line for line in report)


def test_json_is_one_line_with_the_whole_report(checkpoint, image):
    method = "uniform:keep=4"
    (line,) = as_json("run", image, "-p", "what is this", "--model", checkpoint, "--method", method, *LENGTH)
    assert line["prompt"] == "what is this"
    assert line["images"] == [image]
    assert line["answer"] == generated(checkpoint, image, "what is this", library.Uniform(keep=4))
    assert line["report"]["method"] == method
    assert line["report"]["visual_tokens"] == [16]
    assert line["report"]["visual_tokens_per_layer"] == [[4]] * 5
    assert line["report"]["generated_tokens"] == 6


def test_settings_and_presets_reach_the_method(checkpoint, image):
    common = ("run", image, "-p", "what", "--model", checkpoint, *LENGTH)
    (line,) = as_json(*common, "--preset", "compact", "--set", "stride=2")
    assert line["report"]["method"] == str(library.ST3(stride=2, drop_per_cut=0.68, decay="constant"))


def test_all_images_go_into_one_prompt(checkpoint, image, tmp_path):
    other = save_image(tmp_path / "other.jpg")
    (line,) = as_json("run", image, other, image, "-p", "what", "--model", checkpoint, *LENGTH)
    assert line["report"]["visual_tokens"] == [48]


def test_piped_prompts_are_answered_in_order(checkpoint, image):
    common = ("run", image, "--model", checkpoint, "--method", "uniform", *LENGTH)
    lines = as_json(*common, stdin="what is this\n\n  is this w9\r\nwhat\n")
    assert [line["prompt"] for line in lines] == ["what is this", "is this w9", "what"]
    single = [as_json(*common, "-p", line["prompt"])[0] for line in lines]
    assert [line["answer"] for line in lines] == [line["answer"] for line in single]
    assert as_json(*common, "-p", "-", stdin="what\n")[0]["answer"] == lines[2]["answer"]


def test_piped_prompts_head_their_answers(checkpoint, image):
    result = vistrim("run", image, "--model", checkpoint, *LENGTH, stdin="what\nis this\n")
    headings = [line for line in result.stdout.splitlines() if line.startswith("> ")]
    assert headings == ["> what", "> is this"]


def test_compare_prints_both_answers_and_the_gain(checkpoint, image):
    common = ("run", image, "-p", "what is this", "--model", checkpoint, "--compare", *LENGTH)
    result = vistrim(*common)
    assert result.exit_code == 0
    assert f"untouched: {generated(checkpoint, image, 'what is this')}\n" in result.stdout
    assert f"trimmed:   {generated(checkpoint, image, 'what is this', library.ST3())}\n" in result.stdout
    words = " ".join(result.stdout.split())
    for label in ("prefill", "decode, per token", "whole generation", "KV cache at the end", "3 interleaved pairs"):
        assert label in words
    assert "ratio: median of the ratios of the pairs" in words

    (line,) = as_json(*common, "--repeats", "1")
    assert line["answer"] == generated(checkpoint, image, "what is this", library.ST3())
    assert line["untouched_answer"] == generated(checkpoint, image, "what is this")
    comparison = line["comparison"]
    assert comparison["same_answer"] == (line["answer"] == line["untouched_answer"])
    assert comparison["repeats"] == 1
    assert comparison["untouched"]["kv_bytes"] == line["report"]["kv_bytes_full"]
    assert comparison["trimmed"]["kv_bytes"] == line["report"]["kv_bytes"]
    assert comparison["prefill_speedup"] == pytest.approx(
        comparison["untouched"]["prefill_seconds"] / comparison["trimmed"]["prefill_seconds"]
    )


def test_compare_with_a_method_that_keeps_everything(checkpoint, image, tmp_path):
    method, picture = ("--method", "uniform:keep=1.0"), ("--overlay", str(tmp_path / "kept.png"))
    (line,) = as_json(*("run", image, "-p", "what", "--model", checkpoint, "--compare", *method, *picture, *LENGTH))
    assert Image.open(line["overlay"]).width > 200
    assert line["comparison"]["same_answer"]
    assert line["comparison"]["untouched"]["tokens"] == line["comparison"]["trimmed"]["tokens"]


def test_overlay(checkpoint, image, tmp_path):
    picture = tmp_path / "kept.png"
    common = ("run", image, "-p", "what", "--model", checkpoint, *LENGTH)
    result = vistrim(*common, "--overlay", str(picture))
    assert f"overlay: {picture}" in result.stdout
    one = Image.open(picture)
    (line,) = as_json(*common[:2], image, *common[2:], "--overlay", str(picture))
    assert line["overlay"] == str(picture)
    two = Image.open(picture)
    assert one.format == "PNG"
    assert two.height > 1.5 * one.height


def test_overlays_of_several_prompts_are_numbered(checkpoint, image, tmp_path):
    common = ("run", image, "--model", checkpoint, *LENGTH)
    lines = as_json(*common, "--overlay", str(tmp_path / "kept.png"), stdin="what\nis this\n")
    files = sorted(str(path) for path in tmp_path.glob("kept*.png"))
    assert files == [line["overlay"] for line in lines]
    assert [path[-6:] for path in files] == ["-1.png", "-2.png"]


@pytest.mark.parametrize("method", ["vta", "pvtp", "random", "pool"])
def test_every_method_can_be_drawn(checkpoint, image, tmp_path, method):
    picture = str(tmp_path / "kept.png")
    common = ("run", image, "-p", "what", "--model", checkpoint, "--method", method, *LENGTH)
    result = vistrim(*common, "--overlay", picture)
    assert result.exit_code == 0
    assert ("the overlay shows only the image" in result.stderr) == (method == "vta")
    assert Image.open(picture).width > 200


def test_without_a_chat_template_the_plain_form_is_used(image, tmp_path):
    path = builder.save(tmp_path / "plain", chat_template=None)
    (line,) = as_json("run", image, image, "-p", "what is this", "--model", str(path), *LENGTH)
    # USER: 2 images x 16, three words, ASSISTANT:
    assert line["report"]["prompt_tokens"] == [37]
    assert line["report"]["visual_tokens"] == [32]


def test_dtype(checkpoint, image):
    common = ("run", image, "-p", "what", "--model", checkpoint, *LENGTH)
    (full,) = as_json(*common, "--dtype", "float32")
    (half,) = as_json(*common, "--dtype", "bfloat16", "--device", "cpu")
    assert 2 * half["report"]["kv_bytes_full"] == full["report"]["kv_bytes_full"]


def test_words_that_the_model_cannot_read_are_named(checkpoint, image):
    for prompt, words in (("what is (zebra)?", "word zebra"), ("zebra, what? gnu!", "words zebra, gnu")):
        result = vistrim("run", image, "-p", prompt, "--model", checkpoint, *LENGTH, "--json")
        assert result.stderr == f"note: the model does not know the {words}\n"
        assert len(result.stdout.splitlines()) == 1
    assert vistrim("run", image, "-p", "what ?", "--model", checkpoint, *LENGTH).stderr == ""
    result = vistrim("run", image, "-p", "What zebra is this?", "--model", "reference-small", *LENGTH)
    assert result.stderr.startswith("note: the model does not know the words zebra")
    assert result.stderr.endswith("; reference-small knows only questions about drawn shapes\n")


def test_the_answer_streams_to_a_terminal(checkpoint, image, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    common = ["run", image, "-p", "what is this", "--model", checkpoint, "--compare", "--repeats", "1", *LENGTH]
    result = CliRunner().invoke(app, common, color=True)
    plain = generated(checkpoint, image, "what is this")
    assert result.stdout.count(plain) == 1
    assert result.stdout.index("untouched:") < result.stdout.index(plain) < result.stdout.index("trimmed:")


def test_the_model_is_left_untouched(checkpoint, image, monkeypatch):
    loaded = []
    load = library.load
    monkeypatch.setattr(library, "load", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    assert vistrim("run", image, "-p", "what", "--model", checkpoint, "--compare", *LENGTH).exit_code == 0
    # transformers leaves hooks of its own behind.
    modules = loaded[0][0].modules()
    hooks = [hook for m in modules for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not [hook for hook in hooks if hook.__module__.startswith("vistrim")]
