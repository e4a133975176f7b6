import pytest
import torch

import vistrim
from tests.benchmark.small_shapes import small
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.weights import BLOCK
from vistrim.errors import BenchmarkError, LoadError

pytestmark = pytest.mark.slow


def test_weights_are_reproducible_and_scaled_to_their_fan_in():
    one, other = (make_subject(small("qwen2.5-vl-7b")).model for _ in range(2))
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    for (name, weight), (_, again) in pairs:
        assert weight.equal(again), name
        if weight.dim() == 1:
            assert weight.eq(0.0 if name.endswith("bias") else 1.0).all(), name
        elif weight.numel() > 10_000:
            assert weight.std().item() == pytest.approx(weight[0].numel() ** -0.5, rel=0.05), name


def test_layers_differ_unless_they_share():
    model = make_subject(small(layers=4)).model
    weights = [layer.mlp.up_proj.weight for layer in model.get_decoder().layers]
    assert len({weight.data_ptr() for weight in weights}) == 4
    assert not weights[0].equal(weights[1])


def test_no_row_of_a_large_matrix_is_repeated():
    head = make_subject(small(hidden=512)).model.get_output_embeddings().weight
    assert head.numel() < BLOCK
    words = make_subject(small(hidden=640)).model.get_output_embeddings().weight
    assert words.numel() > BLOCK
    assert len(words[:, :3].unique(dim=0)) == len(words)


def test_layers_and_blocks_beyond_the_distinct_ones_share_storage():
    model = make_subject(small(layers=32, distinct_layers=2)).model
    decoder, tower = model.get_decoder().layers, model.model.vision_tower.encoder.layers
    assert (len(decoder), len(tower)) == (32, 24)
    for stack in (decoder, tower):
        for name, weight in stack[0].named_parameters():
            for i, layer in enumerate(stack):
                assert layer.get_parameter(name).data_ptr() == stack[i % 2].get_parameter(name).data_ptr()
            assert weight.dim() == 1 or weight.data_ptr() != stack[1].get_parameter(name).data_ptr()


def test_shared_layers_generate_and_trim():
    subject = make_subject(small(layers=4, distinct_layers=1))
    with vistrim.trim(subject.model, vistrim.PVTP()) as run:
        subject.model.generate(**subject.inputs, max_new_tokens=2)
    assert len(run.report.visual_tokens_per_layer) == 4


def test_bytes_of_a_step_count_layers_each_time_they_run():
    hidden, intermediate, vocabulary = 64, 176, 32064
    layer = 4 * hidden**2 + 3 * hidden * intermediate + 2 * hidden
    for distinct in (None, 1):
        subject = make_subject(small(layers=3, distinct_layers=distinct, dtype="bfloat16"))
        assert subject.model.config.text_config.intermediate_size == intermediate
        assert subject.weight_bytes == 2 * (3 * layer + hidden + hidden * vocabulary)
    assert make_subject(small(layers=3)).weight_bytes == 2 * subject.weight_bytes


def test_generation_goes_on_to_the_end_and_is_greedy():
    subject = make_subject(small(text_tokens=5))
    first, second = (subject.model.generate(**subject.inputs, max_new_tokens=40) for _ in range(2))
    assert first.shape[1] == subject.inputs["input_ids"].shape[1] + 40
    assert first.equal(second)
    assert subject.model.generation_config.eos_token_id is None
    assert subject.model.generation_config.pad_token_id is not None


@pytest.mark.parametrize(("asked", "got"), [("auto", torch.float32), ("float16", torch.float16)])
def test_number_type_of_weights(asked, got):
    model = make_subject(small(dtype=asked)).model
    assert {parameter.dtype for parameter in model.parameters()} == {got}
    assert all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_generates_in_bfloat16(name):
    subject = make_subject(small(name, dtype="bfloat16"))
    assert subject.inputs["pixel_values"].dtype == torch.bfloat16
    with vistrim.trim(subject.model, vistrim.PVTP()) as run:
        subject.model.generate(**subject.inputs, max_new_tokens=2)
    assert run.report.visual_tokens == [subject.visual_tokens]
    with torch.no_grad():
        assert subject.model(**subject.inputs, logits_to_keep=1).logits.isfinite().all()


def test_unknown_kernel_number_type_and_model_are_refused():
    with pytest.raises(BenchmarkError, match="choose sdpa or eager"):
        make_subject(small(attn="fastest"))
    with pytest.raises(LoadError, match="choose auto"):
        make_subject(small(dtype="int3"))
    with pytest.raises(BenchmarkError, match=r"at most \d+ distinct layers"):
        make_subject(small(distinct_layers=3))
