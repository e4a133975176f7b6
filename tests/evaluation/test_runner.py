import json
import weakref
from dataclasses import replace

import pytest
import torch

from tests import tiny
from tests.cli.checkpoint import build_processor
from tests.covering import covering
from vistrim import ST3, VTA, Uniform, UnsupportedGenerationError, UnsupportedModelError, trim
from vistrim.engine.releases import CACHE
from vistrim.errors import PromptError, ResumeError
from vistrim.evaluation import Records, answer_all
from vistrim.evaluation.answering import answer
from vistrim.evaluation.runner import EvaluationError
from vistrim.prompting import format_prompts
from vistrim.reference.items import items

NEW_TOKENS = 4
METHODS = {"st3": ST3(horizon=8, interval=1), "uniform": Uniform(keep=4)}


@pytest.fixture(scope="module")
def model():
    return tiny.shared()


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def asked():
    return [item for task in ("color", "relation") for item in items(task, "test", "several", 3)]


def run(model, processor, asked, folder, methods=METHODS, **options):
    with Records(folder / "samples.jsonl", {}) as records:
        options = {"batch_size": 2, "max_new_tokens": NEW_TOKENS} | options
        answer_all(model, processor, methods, asked, records, **options)
    return records


def lines(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines() if "item" in line]


@pytest.fixture(scope="module")
def whole(model, processor, asked, tmp_path_factory):
    """Records of a run that nothing has interrupted, and their folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run(model, processor, asked, folder), folder


def test_answers_are_those_of_plain_generation(model, processor, asked, whole):
    records, _ = whole
    for name, method in (("untouched", None), *((str(m), m) for m in METHODS.values())):
        for item in asked:
            inputs = format_prompts(processor, [item.prompt], [[item.image()]])
            if method:
                with trim(model, method) as handle:
                    output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
                tokens = handle.report.average_tokens
            else:
                output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
                tokens = tiny.TOKENS_PER_IMAGE
            text = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            sample = records.sample(name, item.id)
            assert sample.answer == text
            assert sample.score == float(text == item.answer)
            assert sample.average_tokens == tokens
            assert sample.visual_tokens == tiny.TOKENS_PER_IMAGE


def test_costs_of_a_method_that_keeps_all_are_the_untouched_ones(model, processor, asked):
    plain = answer(model, processor, asked, None, NEW_TOKENS)
    kept = answer(model, processor, asked, VTA(decay="constant"), NEW_TOKENS)
    assert kept == plain


@covering(1)
@pytest.mark.parametrize("method", [None, *METHODS.values(), VTA(horizon=4, interval=1)], ids=str)
@pytest.mark.parametrize("text", ["llama", "mistral"])
def test_costs_are_those_of_the_item_alone(processor, asked, method, text):
    model = tiny.shared(text)
    together = answer(model, processor, asked, method, NEW_TOKENS)
    assert together == [answer(model, processor, [item], method, NEW_TOKENS)[0] for item in asked]
    assert len({given.prompt_tokens for given in together}) > 1


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_costs_of_one_item_are_those_of_its_report(model, processor, asked, method):
    (given,) = answer(model, processor, asked[:1], method, NEW_TOKENS)
    inputs = format_prompts(processor, [asked[0].prompt], [[asked[0].image()]])
    with trim(model, method) as handle:
        model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    report = handle.report
    assert given.prompt_tokens == report.prompt_tokens[0]
    assert given.average_tokens == report.average_tokens
    assert given.prefill_flops == report.prefill_flops
    assert given.prefill_flops_full == report.prefill_flops_full
    assert given.vision_flops == report.vision_flops
    assert given.kv_mean == pytest.approx(report.kv_fraction_mean)
    assert given.kv_bytes_peak == report.kv_bytes_peak
    assert given.kv_bytes_full == report.kv_bytes_full


def test_untouched_costs_are_those_of_the_real_cache(processor, asked):
    for model in (tiny.shared("qwen2"), tiny.build("mistral", sliding_window=12)):
        (given,) = answer(model, processor, asked[:1], None, NEW_TOKENS)
        inputs = format_prompts(processor, [asked[0].prompt], [[asked[0].image()]])
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True)
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in output[CACHE].layers)
        assert given.kv_bytes_peak == given.kv_bytes_full == held


def test_answers_end_with_the_end_of_sequence_token_or_are_cut_off(processor, asked):
    model = tiny.build()
    plain = answer(model, processor, asked[:2], None, NEW_TOKENS)
    assert [(g.new_tokens, g.ended) for g in plain] == [(NEW_TOKENS, False)] * 2
    inputs = format_prompts(processor, [asked[0].prompt], [[asked[0].image()]])
    first = model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1].item()
    model.generation_config.eos_token_id = [first, 1]
    (ended,) = answer(model, processor, asked[:1], None, NEW_TOKENS)
    assert (ended.new_tokens, ended.ended) == (1, True)
    both = answer(model, processor, asked[:2], METHODS["st3"], NEW_TOKENS)
    assert both == [answer(model, processor, [item], METHODS["st3"], NEW_TOKENS)[0] for item in asked[:2]]


def test_answers_beyond_the_context_are_refused(model, processor, asked):
    with pytest.raises(PromptError, match=r"context of the model is 512 tokens: use --max-new-tokens \d+"):
        answer(model, processor, asked[:1], None, 600)


@pytest.mark.parametrize(
    "stop_after", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_run_that_was_cut_off_goes_on_without_losing_or_repeating(
    model, processor, asked, tmp_path, stop_after, whole
):
    uncut, folder = whole
    steps = 0

    def stop(label, answered):
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, processor, asked, tmp_path / "cut", advance=stop)
    before = lines(tmp_path / "cut")
    told = []
    records = run(model, processor, asked, tmp_path / "cut", advance=lambda label, n: told.append((label, n)))
    after = lines(tmp_path / "cut")
    assert after[: len(before)] == before
    assert after == lines(folder)
    assert sum(n for label, n in told if label == "st3") == len(asked)
    for item in asked:
        assert records.sample("untouched", item.id) == uncut.sample("untouched", item.id)


def test_more_methods_and_items_only_add(model, processor, asked, tmp_path):
    run(model, processor, asked[:2], tmp_path, methods={})
    run(model, processor, asked, tmp_path)
    keys = [(line["method"], line["item"]) for line in lines(tmp_path)]
    assert len(set(keys)) == len(keys) == 3 * len(asked)


def test_one_bad_item_is_reported_spoils_no_other_and_is_tried_again(model, processor, asked, tmp_path):
    def broken():
        raise OSError("the image\nis damaged")

    bad = [asked[0], replace(asked[1], image=broken), asked[2]]
    records = run(model, processor, bad, tmp_path, methods={})
    assert records.failure("untouched", asked[1].id).error == "OSError: the image is damaged"
    assert records.sample("untouched", asked[1].id) is None
    assert records.sample("untouched", asked[0].id)
    assert records.sample("untouched", asked[2].id)
    again = run(model, processor, asked[:3], tmp_path, methods={})
    assert again.failure("untouched", asked[1].id) is None
    assert again.sample("untouched", asked[1].id)


def test_a_failure_of_every_item_stops_with_its_reason(model, processor, asked, tmp_path):
    def broken():
        raise OSError("no such file")

    bad = [replace(item, image=broken, id=f"{i}/{item.id}") for i in range(6) for item in asked]
    with pytest.raises(EvaluationError, match=r"2\d consecutive items failed with untouched: OSError: no such file"):
        run(model, processor, bad, tmp_path)
    assert len(lines(tmp_path)) < len(bad)


def test_a_failed_batch_holds_no_memory_while_its_items_are_tried_again(model, processor, asked, tmp_path, monkeypatch):
    class Batch:
        """Stands for the memory of a batch."""

    alive = weakref.WeakSet()
    sizes = []

    def failing(model, processor, items, method, max_new_tokens):
        held = Batch()
        assert not alive
        alive.add(held)
        sizes.append(len(items))
        if len(items) > 1:
            raise torch.OutOfMemoryError
        return answer(model, processor, items, method, max_new_tokens)

    monkeypatch.setattr("vistrim.evaluation.runner.answer", failing)
    records = run(model, processor, asked[:3], tmp_path, methods={}, batch_size=4)
    assert sizes == [1, 3, 1, 2, 1, 1]
    assert all(records.sample("untouched", item.id) for item in asked[:3])


def test_an_item_that_does_not_fit_into_memory_names_the_fix(model, processor, asked, tmp_path, monkeypatch):
    def failing(*arguments):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("vistrim.evaluation.runner.answer", failing)
    records = run(model, processor, asked[:1], tmp_path, methods={})
    assert "--dtype bfloat16" in records.failure("untouched", asked[0].id).error


def test_unsupported_settings_of_a_checkpoint_are_refused_before_the_first_answer(processor, asked, tmp_path):
    model = tiny.build()
    model.generation_config.cache_implementation = "static"
    with pytest.raises(UnsupportedGenerationError, match="static"):
        run(model, processor, asked, tmp_path)
    assert not (tmp_path / "samples.jsonl").exists()


def test_changed_questions_are_not_mixed_with_old_answers(model, processor, asked, tmp_path):
    run(model, processor, asked, tmp_path, methods={})
    with pytest.raises(ResumeError, match="an answer to another question"):
        run(model, processor, [replace(asked[0], answer="other"), *asked[1:]], tmp_path, methods={})


def test_methods_that_do_not_fit_are_refused_before_the_first_answer(model, processor, asked, tmp_path):
    with pytest.raises(ValueError, match="start_layer"):
        run(model, processor, asked, tmp_path / "a", methods={"st3": ST3(start_layer=50)})
    with pytest.raises(UnsupportedModelError):
        run(torch.nn.Linear(1, 1), processor, asked, tmp_path / "b")
    assert not (tmp_path / "a" / "samples.jsonl").exists()
