import json
from dataclasses import replace

import pytest
import torch

from tests import tiny
from tests.cli.checkpoint import build_processor
from vistrim import ST3, VTA, Uniform, UnsupportedModelError, trim
from vistrim.evaluation import RecordFile, evaluate
from vistrim.evaluation.answering import answer
from vistrim.prompting import format_prompts
from vistrim.reference.items import items

NEW_TOKENS = 6
METHODS = {"st3": ST3(horizon=8), "uniform": Uniform(keep=4)}


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
    records = RecordFile(folder, {})
    evaluate(model, processor, methods, asked, records, **({"batch_size": 2, "max_new_tokens": NEW_TOKENS} | options))
    return records


def lines(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_answers_are_those_of_plain_generation(model, processor, asked, tmp_path):
    records = run(model, processor, asked, tmp_path)
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


def test_costs_of_a_batch_are_those_of_its_run(model, processor, asked):
    given = answer(model, processor, asked[:2], METHODS["st3"], NEW_TOKENS)
    inputs = format_prompts(processor, [i.prompt for i in asked[:2]], [[i.image()] for i in asked[:2]])
    with trim(model, METHODS["st3"]) as handle:
        model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    report = handle.report
    assert sum(g.costs["prefill_flops"] for g in given) == report.prefill_flops
    assert sum(g.costs["kv_bytes_peak"] for g in given) == report.kv_bytes_peak
    assert sum(g.costs["vision_flops"] for g in given) == report.vision_flops
    assert all(g.costs["kv_mean"] == report.kv_fraction_mean < 1 for g in given)


def test_new_tokens_end_with_the_end_of_sequence(model, processor, asked):
    plain = answer(model, processor, asked[:2], None, NEW_TOKENS)
    assert [g.new_tokens for g in plain] == [NEW_TOKENS] * 2
    inputs = format_prompts(processor, [asked[0].prompt], [[asked[0].image()]])
    first = model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1].item()
    model.generation_config.eos_token_id = [first, 1]
    try:
        assert answer(model, processor, asked[:1], None, NEW_TOKENS)[0].new_tokens == 1
    finally:
        model.generation_config.eos_token_id = None


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_run_that_was_cut_off_goes_on_without_losing_or_repeating(model, processor, asked, tmp_path, stop_after):
    whole = run(model, processor, asked, tmp_path / "whole")
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
    assert after == lines(tmp_path / "whole")
    assert sum(n for label, n in told if label == "st3") == len(asked)
    for item in asked:
        assert records.sample("untouched", item.id) == whole.sample("untouched", item.id)


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


def test_what_does_not_fit_is_refused_before_the_first_answer(model, processor, asked, tmp_path):
    with pytest.raises(ValueError, match="start_layer"):
        run(model, processor, asked, tmp_path / "a", methods={"st3": ST3(start_layer=50)})
    with pytest.raises(UnsupportedModelError):
        run(torch.nn.Linear(1, 1), processor, asked, tmp_path / "b")
    assert not (tmp_path / "a" / "samples.jsonl").exists()
