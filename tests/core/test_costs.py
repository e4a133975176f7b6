"""Costs: the published check figures of LLaVA-1.5-7B."""

import pytest

from vistrim import ST3
from vistrim.core.costs import DecoderShape, VisionShape, prefill_flops, vision_flops

LLAVA_7B = DecoderShape(layers=32, hidden=4096, intermediate=11008, heads=32, kv_heads=32, head_dim=128)


@pytest.mark.parametrize(("text", "tera"), [(40, 8.18), (64, 8.50), (100, 9.00)])
def test_prefill_of_the_untouched_model(text, tera):
    assert prefill_flops(LLAVA_7B, [576 + text] * 32) / 1e12 == pytest.approx(tera, abs=0.005)


@pytest.mark.parametrize(
    ("preset", "flops", "kv", "limit"), [("balanced", 42.2, 42.7, 2.37), ("compact", 29.3, 29.6, 3.4)]
)
def test_presets(preset, flops, kv, limit):
    method = ST3.preset(preset)
    rows = [64 + method.tokens_kept(576, layer, 0, 32) for layer in range(32)]
    share = prefill_flops(LLAVA_7B, rows) / prefill_flops(LLAVA_7B, [640] * 32)
    assert 100 * share == pytest.approx(flops, abs=0.1)
    assert 100 * sum(rows) / (640 * 32) == pytest.approx(kv, abs=0.1)
    assert 1 / share == pytest.approx(limit, abs=0.02)


@pytest.mark.parametrize("answer", [64, 128, 256])
@pytest.mark.parametrize(("method", "kv"), [(ST3.preset("balanced"), 43), (ST3(horizon=64, floor=0.1), 30)], ids=str)
def test_share_of_the_cache_held_on_average(method, kv, answer):
    def share(step):
        held = [64 + step + method.tokens_kept(576, layer, step, 32) for layer in range(32)]
        return sum(held) / (32 * (640 + step))

    assert 100 * sum(map(share, range(answer))) / answer == pytest.approx(kv, abs=2.5)


def test_later_turn_attends_to_the_past():
    alone = prefill_flops(LLAVA_7B, [10] * 32)
    assert prefill_flops(LLAVA_7B, [10] * 32, [500] * 32) - alone == 32 * 2 * 10 * 2 * 500 * 4096


def test_vision_tower():
    clip = VisionShape(layers=24, hidden=1024, intermediate=4096, tokens=577, projector=(1024, 4096, 4096))
    assert vision_flops(clip, 2) == 2 * vision_flops(clip, 1)
    assert vision_flops(clip, 1) / 1e12 == pytest.approx(0.406, abs=0.01)
