"""The report agrees with the tensors."""

import json

import pytest
import torch
from rich.console import Console

from tests import tiny
from vistrim import PVTP, ST3, VTA, VTW, Uniform, compose, trim
from vistrim.engine.cache.spare_room import room_for
from vistrim.engine.releases import CACHE

KV_HEADS, HEAD_DIM, FLOAT = 2, 8, 4
PER_TOKEN = 2 * KV_HEADS * HEAD_DIM * FLOAT


def run_one(method, sample=None, new_tokens=8, **options):
    sample = sample or tiny.sample(2, 9)
    model = tiny.shared()
    with trim(model, method) as run:
        output = tiny.generate(model, tiny.batch([sample]), new_tokens, **options)
    return sample, output, run.report


def test_bytes_equal_the_plan_and_the_tensors():
    sample, output, report = run_one(PVTP(1, 2, 0.5))
    n, text = sample.visual, sample.text
    planned = [n, n // 2, n // 2, n // 4, n // 4]
    assert report.visual_tokens_per_layer == [[p] for p in planned]
    assert report.kv_tokens_per_layer == [[p + text + 7] for p in planned]
    assert report.kv_bytes == PER_TOKEN * sum(p + text + 7 for p in planned)
    states = [s for layer in output[CACHE].layers for s in (layer.keys, layer.values)]
    assert report.kv_bytes == report.kv_bytes_peak == sum(s.nbytes for s in states)
    # Nothing else is kept alive behind them but room for a few more tokens.
    for s in states:
        assert s.untyped_storage().nbytes() <= s.nbytes // s.shape[2] * (s.shape[2] + room_for(s.shape[2]))
    assert report.kv_bytes_full == PER_TOKEN * tiny.DEPTH * (n + text + 7)
    assert report.kv_tokens_per_step == [[sum(planned) + tiny.DEPTH * (text + t)] for t in range(8)]
    assert report.kv_bytes_per_step == [PER_TOKEN * held for (held,) in report.kv_tokens_per_step]
    shares = [(sum(planned) + 5 * (text + t)) / (5 * (n + text + t)) for t in range(8)]
    assert report.kv_fraction_mean == pytest.approx(sum(shares) / 8)
    assert report.kv_fraction_peak == pytest.approx(max(shares))
    # Text adds nothing to the visual share.
    assert report.kv_visual_fraction_mean == pytest.approx(sum(planned) / (tiny.DEPTH * n))
    assert report.flops_fraction == report.prefill_flops / report.prefill_flops_full


def test_annealing_lowers_the_bytes_step_by_step():
    method = VTA("linear", 8, 0.0, interval=1)
    sample, _, report = run_one(method)
    n, text = sample.visual, sample.text
    kept = [n, *(method.tokens_kept(n, 0, t, tiny.DEPTH) for t in range(1, 8))]
    held = [k + text + t for t, k in enumerate(kept)]
    assert report.kv_tokens_per_step == [[tiny.DEPTH * h] for h in held]
    assert report.kv_bytes_per_step == [tiny.DEPTH * PER_TOKEN * h for h in held]
    assert report.kv_bytes == tiny.DEPTH * PER_TOKEN * held[-1]
    assert report.kv_bytes_peak == tiny.DEPTH * PER_TOKEN * max(held)
    shares = [h / (n + text + t) for t, h in enumerate(held)]
    assert report.kv_fraction_mean == pytest.approx(sum(shares) / 8)
    assert report.kv_fraction_peak == shares[0] == 1.0
    assert report.kv_visual_fraction_mean == pytest.approx(sum(kept) / (8 * n))
    assert report.flops_fraction == 1.0
    assert {"kv_fraction_mean", "kv_fraction_peak", "kv_visual_fraction_mean", "flops_fraction"} <= set(
        report.to_dict()
    )


def test_visual_fraction_counts_the_images_of_all_turns_and_samples():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    more, pixels = torch.tensor([[5, *[tiny.IMAGE] * 16, 6]] * 3), torch.randn(3, 3, 16, 16)
    with trim(model, Uniform(4)) as run:
        first = tiny.generate(model, inputs, 2, num_beams=2)
        tiny.generate(model, inputs, 2)
        first = tiny.generate(model, inputs, 2)
        tiny.generate(model, tiny.follow_up(first, inputs, more, torch.cat([inputs["pixel_values"], pixels])[-3:]), 2)
    assert [report.kv_visual_fraction_mean for report in run.reports] == [0.25] * 4
    assert run.reports[0].kv_visual_bytes_full_per_step == [PER_TOKEN * tiny.DEPTH * 2 * 64] * 2
    assert run.reports[3].kv_visual_bytes_full_per_step == [PER_TOKEN * tiny.DEPTH * (64 + 48)] * 2
    with trim(model, Uniform(4)) as run:
        tiny.generate(model, tiny.batch([tiny.sample(0, 9)]), 2)
        tiny.generate(model, inputs, 2, use_cache=False)
    assert [report.kv_visual_fraction_mean for report in run.reports] == [None] * len(run.reports)
    assert run.report.kv_fraction_mean is run.report.kv_fraction_peak is None


def test_the_repr_of_a_handle():
    run = trim(tiny.shared(), Uniform(4), reports=1)
    assert "LlavaForConditionalGeneration by uniform:keep=4: detached, 0 generations seen" in repr(run)
    with run:
        for seen in ("1 generation ", "2 generations "):
            tiny.generate(run.model, tiny.batch([tiny.sample(1, 9)]), 1)
            assert f"attached, {seen}seen" in repr(run)


def test_flops_equal_a_count_of_the_matrix_products():
    """Counted by torch on the real forward pass; the head and the vision tower are taken off."""
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = tiny.shared("llama", "eager"), tiny.batch([tiny.sample(2, 9)])
    for method in (PVTP(1, 2, 0.5), Uniform(0.25)):
        with torch.no_grad(), trim(model, method) as run, FlopCounterMode(display=False) as counter:
            model(**inputs, use_cache=True)
        counted = counter.get_flop_counts()["LlavaForConditionalGeneration.model.language_model"]
        # Rotary tables are a small matrix product per forward pass; scores are one query row per cut.
        assert sum(counted.values()) == pytest.approx(run.report.prefill_flops, rel=0.01)


def test_vision_flops_equal_a_count_of_the_matrix_products():
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = tiny.build(attention="eager"), tiny.batch([tiny.sample(2, 9)])
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run, FlopCounterMode(display=False) as counter:
        model(**inputs)
    counts = counter.get_flop_counts()
    tower, projector = "LlavaForConditionalGeneration.model.vision_tower", "multi_modal_projector"
    counted = sum(counts[tower].values()) - sum(v for k, v in counts[tower].items() if "convolution" in str(k))
    counted += sum(counts[f"LlavaForConditionalGeneration.model.{projector}"].values())
    # The class token does not go through the projector.
    assert counted == pytest.approx(run.report.vision_flops, rel=0.05)


def test_ragged_batch():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, PVTP(1, 2, 0.5)) as run:
        tiny.generate(model, inputs)
    report = run.report
    assert report.visual_tokens == [s.visual for s in tiny.RAGGED]
    assert report.prompt_tokens == [len(s.ids) for s in tiny.RAGGED]
    assert report.visual_tokens_per_layer[-1] == [s.visual // 4 for s in tiny.RAGGED]
    assert report.average_tokens == pytest.approx(sum(map(sum, report.visual_tokens_per_layer)) / 15)


def test_stages_name_the_tokens_kept():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, PVTP(1, 2, 0.5)) as run:
        tiny.generate(model, inputs)
    stages = run.report.stages
    assert [stage.layer for stage in stages] == [1, 3]
    for earlier, later in zip([None, *stages], stages, strict=False):
        for b, sample in enumerate(tiny.RAGGED):
            kept = later.kept[b]
            assert kept == sorted(set(kept))
            assert set(kept) <= set(earlier.kept[b] if earlier else range(sample.visual))
            assert len(kept) == run.report.visual_tokens_per_layer[later.layer][b]


def test_uniform_stage_is_before_the_decoder():
    _, _, report = run_one(Uniform(keep=4), tiny.sample(2, 9))
    assert [stage.layer for stage in report.stages] == [0]
    assert report.stages[0].kept == [[2, 6, 10, 14, 18, 22, 26, 30]]
    assert report.visual_tokens_per_layer == [[8]] * tiny.DEPTH


def test_times_and_tokens():
    _, _, report = run_one(PVTP(1, 2, 0.5), new_tokens=5)
    assert report.generated_tokens == 5
    assert 0 < report.select_seconds < report.prefill_seconds
    assert report.decode_seconds_per_token > 0
    _, _, report = run_one(PVTP(1, 2, 0.5), new_tokens=1)
    assert report.generated_tokens == 1
    assert report.decode_seconds_per_token is None


def test_prompt_lookup_counts_the_prompt_and_the_answer():
    sample, output, report = run_one(
        PVTP(1, 2, 0.5), new_tokens=24, prompt_lookup_num_tokens=3, max_matching_ngram_size=1
    )
    assert report.prompt_tokens == [len(sample.ids)]
    assert report.generated_tokens == 24
    assert report.kv_tokens_per_layer == [[layer.keys.shape[-2]] for layer in output[CACHE].layers]


def test_images_are_encoded_once_for_all_beams():
    plain, beams = run_one(PVTP())[2], run_one(PVTP(), num_beams=3)[2]
    assert plain.vision_flops == beams.vision_flops > 0
    assert beams.visual_tokens == plain.visual_tokens * 3


def test_loop_by_hand_after_generate_has_a_report_of_its_own():
    model = tiny.shared()
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run:
        output = tiny.generate(model, tiny.batch([tiny.sample(1, 9)]), 2)
        model(input_ids=torch.tensor([[5]]), **{CACHE: output[CACHE]})
    assert [report.generated_tokens for report in run.reports] == [2, 0]


def test_text_turn_on_an_annealed_cache_does_not_claim_that_nothing_was_saved():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(9, 30)])
    with trim(model, VTA("linear", 8, 0.0, interval=1)) as run:
        first = tiny.generate(model, inputs)
        tiny.generate(model, tiny.follow_up(first, inputs, torch.tensor([[5, 6]])))
    assert run.report.warnings == []


def test_sliding_window_without_trimming_equals_the_model():
    model = tiny.build("mistral", sliding_window=12)
    with trim(model, PVTP(drop_per_cut=0.0)) as run:
        first = tiny.generate(model, inputs := tiny.batch([tiny.sample(1, 9)]))
        tiny.generate(model, tiny.follow_up(first, inputs, torch.tensor([[5, 6]])))
    for report in run.reports:
        assert report.kv_bytes == report.kv_bytes_full
        assert report.kv_fraction_mean == report.kv_fraction_peak == 1.0
        # The window has pushed out every image of the first turn.
        assert report.kv_visual_fraction_mean in (1.0, None)
        assert report.prefill_flops == report.prefill_flops_full


def test_warnings():
    long = tiny.sample(9, 30)
    assert run_one(PVTP(1, 2, 0.5), long)[2].warnings == []
    assert "short prompt" in run_one(PVTP(1, 2, 0.5))[2].warnings[0]
    assert "nothing was trimmed" in run_one(PVTP(drop_per_cut=0.0), long)[2].warnings[0]
    assert "no visual tokens" in run_one(PVTP(), tiny.sample(0, 9))[2].warnings[0]


def test_forms():
    _, _, report = run_one(ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1))
    data = json.loads(report.to_json())
    assert data == report.to_dict()
    assert data["method"].startswith("st3:")
    assert data["stages"][0]["layer"] == 1
    console = Console(record=True, width=120)
    console.print(report)
    shown = console.export_text()
    for form in (str(report), shown, report._repr_html_()):
        assert "KV cache at the end" in form
        assert "short prompt" in form
        # One word for the baseline.
        assert "of the untouched model" in form.replace("&#x27;", "'")
        assert "untrimmed" not in form


def test_flops_of_a_sample_do_not_depend_on_its_batch():
    model, method = tiny.shared(), compose(Uniform(0.5), PVTP(1, 2, 0.5))
    with trim(model, method) as run:
        tiny.generate(model, tiny.batch(tiny.RAGGED))
        for sample in tiny.RAGGED:
            tiny.generate(model, tiny.batch([sample]))
    together, *alone = run.reports
    assert together.prefill_flops_per_sample == [report.prefill_flops for report in alone]
    assert together.method_flops == [0, 0, 0]
    assert together.prefill_flops > sum(together.prefill_flops_per_sample)


def test_exit_layers():
    model, inputs = tiny.shared(), tiny.batch([*tiny.RAGGED, tiny.sample(0, 9)])
    with trim(model, VTW(3)) as run:
        tiny.generate(model, inputs)
    with trim(model, Uniform(0.5)) as half:
        tiny.generate(model, inputs)
    assert run.report.exit_layers == [3, 3, 3, None]
    assert run.report.to_dict()["exit_layers"] == [3, 3, 3, None]
    assert ("  no visual tokens from layer", "3, 3, 3") in run.report.rows()
    assert half.report.exit_layers == [None] * 4
    assert not any("no visual tokens from" in label for label, _ in half.report.rows())
