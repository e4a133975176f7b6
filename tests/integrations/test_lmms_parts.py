"""Parts of the model for lmms-eval that do not need lmms-eval."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import vistrim
from vistrim.errors import InputError, PromptError
from vistrim.evaluation.answering import answer_inputs
from vistrim.integrations.lmms.arguments import ModelArguments, read_arguments
from vistrim.integrations.lmms.likelihood import likelihood
from vistrim.integrations.lmms.requests import conversation, rounds, user_message
from vistrim.integrations.lmms.settings import batches, cut_at_stops, read_settings
from vistrim.integrations.lmms.stopping import StopAt
from vistrim.prompting import format_conversations, format_prompts
from vistrim.reference.suites import questions


@pytest.fixture(scope="module")
def loaded():
    return vistrim.load("reference-small")


def test_the_entry_point_imports_nothing():
    declared = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (module,) = re.findall(r'^vistrim = "(.*lmms_eval):manifest"$', declared, flags=re.MULTILINE)
    script = f"import sys, {module}; assert not {{'torch', 'transformers', 'lmms_eval'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_arguments_as_lmms_eval_reads_them():
    given = {"pretrained": "reference", "method": '"st3:stride=2,drop_per_cut=0.5"', "budget": "tokens=0.33"}
    found = read_arguments(given | {"batch_size": "8", "device": "cpu", "max_batch_size": 1})
    assert found == ModelArguments(
        "reference", "st3:stride=2,drop_per_cut=0.5", budget="tokens=0.33", batch_size=8, device="cpu"
    )


def test_wrong_arguments_name_the_fix():
    whole = {"pretrained": "reference", "method": "st3"}
    for wrong, message in (
        ({"method": "st3:stride=2", "drop_per_cut": 0.5}, "no argument drop_per_cut.*needs quotes"),
        ({"pretrained": ""}, "pretrained= is missing: write for example"),
        ({"method": ""}, "method= is missing.*method=untouched"),
        ({"method": "untouched", "budget": "kv=0.5"}, "leave budget= out"),
        ({"batch_size": "auto"}, "batch_size=auto: give a whole number"),
    ):
        with pytest.raises(InputError, match=message):
            read_arguments(whole | wrong)


def test_settings_of_tasks():
    greedy = {"temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False, "image_aspect_ratio": "pad"}
    found = read_settings(greedy | {"until": ["\n\n", "", "\n\n"], "max_new_tokens": 16})
    assert (found.generate, found.max_new_tokens, found.stops) == (
        {"num_beams": 1, "do_sample": False},
        16,
        ("\n\n",),
    )
    sampled = read_settings({"temperature": 0.7, "top_p": None, "until": "."})
    assert sampled.generate == {"do_sample": True, "temperature": 0.7}
    assert (sampled.max_new_tokens, sampled.stops) == (None, (".",))
    assert read_settings({"temperature": 0.7, "do_sample": False}).generate == {"do_sample": False}
    assert read_settings({"do_sample": True}).generate == {"do_sample": True}
    with pytest.raises(InputError, match="argument num_return_sequences"):
        read_settings({"num_return_sequences": 2})


def test_batches_have_equal_settings_and_lose_no_request():
    given = [{"max_new_tokens": n, "until": ["a"]} for n in (4, 8, 4, 4, 8)]
    assert batches(given, 2) == [[0, 2], [3], [1, 4]]
    assert cut_at_stops("red. A square, blue", ["square", ". A"]) == "red"
    assert cut_at_stops("red", ["square"]) == "red"


def test_conversations():
    image = Image.new("RGBA", (4, 4))
    found = conversation(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image", "url": image}, {"type": "video", "url": "a.mp4"}]},
        ]
    )
    assert found[0]["content"] == [{"type": "text", "text": "Be brief."}]
    shown, video = found[1]["content"]
    assert shown["image"].mode == "RGB"
    assert video == {"type": "video", "video": "a.mp4"}
    kinds = [part["type"] for part in user_message([image, "b.mkv", {"url": "c.mp4"}], "Why?")[0]["content"]]
    assert kinds == ["image", "video", "video", "text"]
    for part, message in (
        ({"type": "audio", "url": "a.wav"}, "text, images and videos"),
        ({"type": "video", "url": "a.mp4", "start_time": 2.0}, "whole videos only"),
        ({"type": "image", "url": 3}, "an image of the task is a int"),
    ):
        with pytest.raises(InputError, match=message):
            conversation([{"role": "user", "content": [part]}])


def test_rounds_end_where_the_task_ends_them():
    def ask(document, round_idx=0, previous_output=(), previous_round_info=None):
        messages = [{"role": "user", "content": f"{document} {len(previous_output)} {previous_round_info}"}]
        return (messages, round_idx == 2, previous_output, round_idx) if round_idx else messages

    asked = []
    assert rounds(ask, "d", lambda messages: asked.append(messages[0]["content"][0]["text"]) or "a") == ["a", "a"]
    assert asked == ["d 0 None", "d 1 None"]
    assert rounds(lambda document, **_: [{"role": "user", "content": "?"}], "d", lambda messages: "b") == ["b"]


def test_an_answer_stops_and_counts_alone(loaded):
    model, processor = loaded
    asked = questions("reference", "description", limit=2)
    inputs = format_prompts(processor, [item.prompt for item in asked], [item.images() for item in asked])
    whole = answer_inputs(model, processor, inputs, None, max_new_tokens=9)
    stop = whole[0].answer.split()[3]
    stopping = [StopAt([stop], processor.tokenizer, inputs["input_ids"].shape[1])]
    for method in (None, vistrim.get_method("random", keep=1.0)):
        found = answer_inputs(model, processor, inputs, method, max_new_tokens=9, stopping_criteria=stopping)
        for answer, full in zip(found, whole, strict=True):
            assert cut_at_stops(answer.answer, [stop]) == cut_at_stops(full.answer, [stop])
            stopped = stop in full.answer
            assert answer.new_tokens < full.new_tokens if stopped else answer.new_tokens == full.new_tokens


def test_beams_have_the_costs_of_one_answer(loaded):
    model, processor = loaded
    asked = questions("reference", "color", limit=2)
    inputs = format_prompts(processor, [item.prompt for item in asked], [item.images() for item in asked])
    one, several = (
        answer_inputs(model, processor, inputs, vistrim.PVTP(), max_new_tokens=3, num_beams=beams) for beams in (1, 2)
    )
    for greedy, searched in zip(one, several, strict=True):
        assert (greedy.visual_tokens, greedy.prefill_flops) == (searched.visual_tokens, searched.prefill_flops)
        assert greedy.kv_mean == pytest.approx(searched.kv_mean, rel=0.1)


def test_likelihoods_are_those_of_each_token(loaded):
    model, processor = loaded
    (item,) = questions("reference", "color", limit=1)
    inputs = format_prompts(processor, [item.prompt], [item.images()])
    for method in (None, vistrim.get_method("random", keep=1.0)):
        right, wrong = (likelihood(model, processor, inputs, f" {word}", method) for word in (item.answer, "seven"))
        assert right.is_greedy
        assert right.loss < wrong.loss
        assert not wrong.is_greedy
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].log_softmax(-1)
    (token,) = processor.tokenizer(item.answer, add_special_tokens=False)["input_ids"]
    assert right.loss == pytest.approx(-float(logits[token]), abs=1e-4)
    trimmed = likelihood(model, processor, inputs, f" {item.answer}", vistrim.get_method("random", keep=0.25))
    assert trimmed.average_tokens == right.average_tokens / 4
    assert trimmed.flops < trimmed.flops_full
    with pytest.raises(InputError, match="adds no token"):
        likelihood(model, processor, inputs, " ", None)


def test_conversations_of_several_turns(loaded):
    _, processor = loaded
    image = questions("reference", "color", limit=1)[0].image()
    answer = {"role": "assistant", "content": [{"type": "text", "text": "red"}]}
    turns = [*user_message([image, image], "What color?"), answer, *user_message([], "How many?")]
    text = processor.batch_decode(format_conversations(processor, [turns])["input_ids"])[0]
    assert re.search(r"what color <assistant> red <eos> <user> how many <assistant>$", text)
    with pytest.raises(PromptError, match="<image>"):
        format_conversations(processor, [user_message([], "<image>")])


def test_without_a_chat_template_there_is_one_question(loaded):
    from copy import copy

    processor = copy(loaded[1])
    processor.chat_template = None
    image = questions("reference", "color", limit=1)[0].image()
    assert format_conversations(processor, [user_message([image], "Which?")])["input_ids"].shape[0] == 1
    for wrong in (user_message([], "a") * 2, [{"role": "user", "content": []}]):
        with pytest.raises(PromptError, match="no chat template"):
            format_conversations(processor, [wrong])


def test_a_batch_may_have_questions_without_images(loaded):
    model, processor = loaded
    image = questions("reference", "color", limit=1)[0].image()
    inputs = format_conversations(processor, [user_message([image], "Which?"), user_message([], "Why?")])
    found = answer_inputs(model, processor, inputs, vistrim.PVTP(), max_new_tokens=2)
    assert [answer.visual_tokens for answer in found] == [144, 0]


def test_videos_go_to_the_processor(loaded):
    class Processor:
        chat_template = "{}"
        tokenizer = loaded[1].tokenizer
        video_processor = object()

        def apply_chat_template(self, turns, processor_kwargs, **_):
            return {"turns": turns, "options": processor_kwargs}

    asked = user_message(["a.mp4", "b.mp4"], "Why?")
    found = format_conversations(Processor(), [asked], num_frames=4)
    assert found["turns"] == [asked]
    assert found["options"] == {"padding": True, "padding_side": "left", "num_frames": 4}
