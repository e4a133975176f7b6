"""YOPO against a dense reference that computes everything and masks it."""

from functools import cache

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_lifecycle import fingerprint, used_model
from tests.methods.structural_reference import Structural
from vistrim import (
    VTA,
    YOPO,
    FastV,
    PyramidDrop,
    Uniform,
    UnsupportedGenerationError,
    UnsupportedModelError,
    compose,
    get_method,
    trim,
)
from vistrim.architectures import discover
from vistrim.cli.parsing import parse_method
from vistrim.engine.releases import CACHE
from vistrim.methods.base.artifacts import save_part

HEADS = (
    (True, True, True, True),
    (True, False, True, True),
    (False, False, True, False),
    (False, True, True, False),
    (False, False, False, False),
)
"""Of two heads for each key head: all, one of a pair, a whole pair, one of each pair, none."""

CUTS = {
    "window": {"window": 3},
    "window of one": {"window": 1},
    "window beyond the grid": {"window": 9},
    "heads": {"heads": HEADS},
    "heads counted": {"heads": HEADS, "normalize": "all"},
    "layer": {"layer": 2},
    "ffn": {"ffn": 0.5},
    "together": {"window": 3, "heads": HEADS, "layer": 3, "ffn": 0.5},
    "counted together": {"window": 3, "heads": HEADS, "ffn": 0.3, "normalize": "all"},
}
EACH = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
TOGETHER = [CUTS["together"], CUTS["counted together"]]


def answers(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


def check(model, method, samples, steps=3, **reference):
    """A batch under a method equals each sample's reference."""
    inputs = tiny.batch(samples)
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, steps)
    for b, sample in enumerate(samples):
        dense = Structural(model, **reference)
        expected = dense.follow(sample.ids, sample.pixels, answers(output, inputs)[b])
        assert close(tiny.logits(output)[b], expected)
    return run.report


@covering(1)
@EACH
@pytest.mark.parametrize(("samples", "attention"), [(tiny.RAGGED, "sdpa"), (tiny.SAME_LENGTH, "eager")])
def test_equals_the_masked_reference(cut, samples, attention):
    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    report = check(model, YOPO(**cut), samples, **cut)
    assert (report.kv_bytes < report.kv_bytes_full) == ("layer" in cut)
    with torch.no_grad(), trim(model, YOPO(**cut)):
        cut_logits = model(**inputs).logits[:, -1]
    with torch.no_grad():
        assert (cut_logits - model(**inputs).logits[:, -1]).abs().amin(0).max() > 0.1


@pytest.mark.parametrize("cut", TOGETHER)
def test_biases_and_sliding_windows(cut):
    biased = tiny.build("qwen2")
    with torch.no_grad():
        for name, parameter in biased.named_parameters():
            if name.endswith("proj.bias"):
                parameter.normal_()
    for model in (biased, tiny.build("mistral", sliding_window=12), tiny.build("mistral", sliding_window=28)):
        check(model, YOPO(**cut), tiny.RAGGED[:2], **cut)


@pytest.mark.parametrize("cut", TOGETHER)
@pytest.mark.parametrize("images", [0, 1])
def test_second_turn(cut, images):
    """Text reads the images of the first turn by the same heads; a new image does not attend to the old one."""
    model, sample, more = tiny.shared(), tiny.sample(1, 9), tiny.sample(images, 5, seed=7)
    inputs = tiny.batch([sample])
    with trim(model, YOPO(**cut)):
        first = tiny.generate(model, inputs, 3)
        turn = tiny.follow_up(first, inputs, torch.tensor([more.ids]), more.pixels if images else None)
        second = tiny.generate(model, turn, 3)
    dense, answer = Structural(model, **cut), answers(first, inputs)[0]
    dense.follow(sample.ids, sample.pixels, answer)
    expected = dense.follow(answer[-1:] + more.ids, more.pixels, answers(second, turn)[0])
    assert close(tiny.logits(second)[0], expected)


@pytest.mark.parametrize("cut", TOGETHER)
@pytest.mark.parametrize("samples", [[tiny.sample(2, 9)], tiny.RAGGED], ids=["one", "ragged"])
def test_removed_tokens_leave_holes_in_the_grid(cut, samples):
    model, inputs = tiny.shared(), tiny.batch(samples)
    with trim(model, compose(Uniform(0.6), YOPO(**cut))) as run:
        output = tiny.generate(model, inputs, 3)
    for b, sample in enumerate(samples):
        rows = [i for i, token in enumerate(sample.ids) if token == tiny.IMAGE]
        gone = set(rows) - {rows[i] for i in run.report.stages[0].kept[b]}
        expected = Structural(model, **cut, gone=gone).follow(sample.ids, sample.pixels, answers(output, inputs)[b])
        assert gone
        assert close(tiny.logits(output)[b], expected)


def keep_best(dense, layers, scores, count, end):
    """Of the visual keys that the first of the layers holds, let all but the best end in all of them."""
    held = [i for i in dense.visual if i not in dense.ends[layers[0]]]
    for i in sorted(held, key=lambda i: (-scores[i].item(), i))[count:]:
        for layer in layers:
            dense.ends[layer][i] = end


def cut_once(layer, kept, ahead=False):
    """Before a layer of the prefill, by the layer before it or by itself."""

    def before(dense, number):
        if number == layer and not dense.ends[layer]:
            scores = dense.ahead if ahead else dense.received[layer - 1]
            keep_best(dense, range(layer, tiny.DEPTH), scores, kept(len(dense.visual)), 0)

    return before


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_that_see_nothing_do_not_rank(attention):
    """Methods that rank inside the decoder count the heads that see visual tokens."""
    cut, model = {"window": 3, "heads": HEADS, "ffn": 0.5}, tiny.shared("llama", attention)
    for cutter, before in (
        (FastV(3, 0.5), cut_once(3, lambda n: n // 2)),
        (PyramidDrop((2,), (0.5,), "original"), cut_once(2, lambda n: n // 2, ahead=True)),
    ):
        check(model, compose(YOPO(**cut), cutter), tiny.RAGGED, 3, **cut, before=before)


@pytest.mark.parametrize("cut", TOGETHER)
def test_annealing_of_the_cache(cut):
    schedule = VTA("linear", 6, 0.0, interval=1)

    def before(dense, number):
        step, row = len(dense.image) - prompt, len(dense.image) - 1
        if step and number < cut.get("layer", tiny.DEPTH):
            count = schedule.tokens_kept(len(dense.visual), number, step, tiny.DEPTH)
            scores = (dense.received_before[0] if number == 0 else dense.received[number - 1]).clone()
            scores[list(dense.ends[max(0, number - 1)])] = -1
            keep_best(dense, [number], scores, count, row)

    for sample in tiny.RAGGED[:2]:
        prompt = len(sample.ids)
        report = check(tiny.shared(), compose(YOPO(**cut), schedule), [sample], 6, **cut, before=before)
        assert report.kv_tokens_per_layer[0] == [sample.text + 5 + schedule.tokens_kept(sample.visual, 0, 5, 5)]


def test_gradients():
    """Skipped parts take no part in training."""
    cut, model, sample = CUTS["together"], tiny.build(), tiny.sample(2, 9)
    wanted = [p for layer in model.get_decoder().layers for p in layer.parameters()]
    with trim(model, YOPO(**cut)):
        model(**tiny.batch([sample])).logits[0, -1].square().sum().backward()
    found = [p.grad.clone() for p in wanted]
    model.zero_grad()
    dense = Structural(model, **cut)
    dense.read(sample.ids, sample.pixels)
    dense.logits().square().sum().backward()
    for a, p in zip(found, wanted, strict=True):
        assert close(a, p.grad)


@pytest.mark.parametrize("method", [YOPO(), YOPO(heads=((True,) * 4,) * tiny.DEPTH)])
def test_whole_structures_install_nothing(method):
    model, inputs = used_model()
    with trim(model, PyramidDrop((2,), (1.0,))):
        before = set(fingerprint(model))
    with trim(model, method) as run:
        assert set(fingerprint(model)) == before
        output = tiny.generate(model, inputs)
    assert torch.equal(tiny.logits(output), tiny.logits(tiny.generate(model, inputs)))
    assert run.report.prefill_flops == run.report.prefill_flops_full
    assert any("nothing was trimmed" in warning for warning in run.report.warnings)


TEXT_ALONE = tiny.batch([tiny.sample(0, 9), tiny.sample(0, 12)])


@cache
def untouched_logits():
    return tiny.logits(tiny.generate(tiny.shared(), TEXT_ALONE, 3))


@EACH
def test_prompts_without_images_do_not_change_a_bit(cut):
    model = tiny.shared()
    with trim(model, YOPO(**cut)):
        output = tiny.generate(model, TEXT_ALONE, 3)
    assert torch.equal(tiny.logits(output), untouched_logits())


def test_leaving_restores_the_model():
    model, inputs = used_model()
    own = model.get_decoder().layers[0].mlp.forward
    model.get_decoder().layers[0].mlp.forward = own
    before = fingerprint(model)
    with trim(model, YOPO(**CUTS["together"])):
        tiny.generate(model, inputs)
        assert fingerprint(model) != before
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    "cut", [CUTS["counted together"], *(pytest.param(cut, marks=pytest.mark.slow) for cut in CUTS.values())]
)
def test_flops_equal_a_count_of_the_matrix_products(cut):
    model, samples = tiny.shared("llama", "eager"), tiny.RAGGED
    counts = []
    with torch.no_grad(), trim(model, YOPO(**cut)) as run, sdpa_kernel(SDPBackend.MATH):
        for batch in (samples, *([sample] for sample in samples)):
            with FlopCounterMode(display=False) as counter:
                model(**tiny.batch(batch), use_cache=True)
            decoder = counter.get_flop_counts()["LlavaForConditionalGeneration.model.language_model"]
            counts.append(sum(decoder.values()))
    assert [report.prefill_flops for report in run.reports] == counts
    assert run.reports[0].prefill_flops_per_sample == counts[1:]


def test_keys_and_values_of_inactive_heads_are_not_computed():
    model, sample = tiny.shared(), tiny.sample(1, 9)
    visual = torch.tensor(sample.ids) == tiny.IMAGE
    for normalize in ("attended", "all"):
        with trim(model, YOPO(heads=HEADS, normalize=normalize)) as run:
            cache = tiny.generate(model, tiny.batch([sample]), 1)[CACHE]
        for heads, layer in zip(HEADS, cache.layers, strict=True):
            used = torch.tensor(heads).view(2, 2).any(1)
            is_zero = [(x[0][:, visual] == 0).all(2).all(1) for x in (layer.keys, layer.values)]
            assert torch.equal(is_zero[1], ~used)
            assert torch.equal(is_zero[0], ~used) if normalize == "attended" else not is_zero[0].any()
        assert run.report.kv_bytes == run.report.kv_bytes_full


def test_a_cache_without_some_heads_is_not_continued_otherwise():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    method = YOPO(heads=HEADS)
    with trim(model, method):
        first = tiny.generate(model, inputs, 2)
    turn = tiny.follow_up(first, inputs, torch.tensor([[5, 6, 7]]))
    with pytest.raises(UnsupportedGenerationError, match="cannot be continued without it"):
        tiny.generate(model, turn, 2)
    for other in (FastV(), YOPO(heads=HEADS, normalize="all"), YOPO(window=3)):
        with trim(model, other), pytest.raises(UnsupportedGenerationError, match="the same heads cut"):
            tiny.generate(model, turn, 2)
    with trim(model, method):
        tiny.generate(model, turn, 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window": 4}, "odd whole number"),
        ({"window": 0}, "odd whole number"),
        ({"window": 3.0}, "odd whole number"),
        ({"layer": 0}, "at least 1"),
        ({"ffn": 0.0}, "above 0"),
        ({"ffn": 1.5}, "above 0"),
        ({"normalize": "none"}, "attended or all"),
        ({"normalize": "all", "layer": 2}, r"no layer drop \(layer=none\)"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        YOPO(**parameters)


def test_cuts_that_do_not_fit_the_model(tmp_path):
    model = tiny.shared()
    with pytest.raises(ValueError, match="choose a smaller layer"):
        trim(model, YOPO(layer=tiny.DEPTH))
    for heads in (HEADS[1:], tuple(row[1:] for row in HEADS)):
        with pytest.raises(ValueError, match="vistrim calibrate yopo"):
            trim(model, YOPO(heads=heads))
    for missing in ("auto", str(tmp_path / "none.safetensors")):
        with pytest.raises(ValueError, match="vistrim calibrate yopo"):
            trim(model, YOPO(heads=missing))
    facts = discover(model).facts
    path, empty = tmp_path / "yopo.safetensors", tmp_path / "empty.safetensors"
    save_part(empty, "yopo", facts, {"other": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="holds no mask"):
        trim(model, YOPO(heads=str(empty)))
    save_part(path, "yopo", facts, {"heads": torch.tensor(HEADS)}, {})
    with trim(model, YOPO(heads=str(path))) as run:
        tiny.generate(model, tiny.batch([tiny.sample()]), 1)
    assert run.report.method == f"yopo:window=None,heads={path},layer=None,ffn=1.0,normalize=attended"
    other = tiny.build()
    other.name_or_path = "other"
    with pytest.raises(ValueError, match="was made for a model with ''"):
        trim(other, YOPO(heads=str(path)))


def test_layers_of_other_parts():
    for name, cut in (("self_attn.q_proj", {"heads": HEADS}), ("mlp.up_proj", {"ffn": 0.5})):
        model = tiny.build()
        layer = model.get_decoder().layers[2]
        owner = layer.get_submodule(name.split(".")[0])
        setattr(owner, name.split(".")[1], torch.nn.Sequential(layer.get_submodule(name)))
        with pytest.raises(UnsupportedModelError, match=name.split(".")[1]):
            trim(model, YOPO(**cut))
        trim(model, YOPO(window=3, layer=2))


def test_invalid_parameters():
    model, inputs = tiny.build(attention="eager"), tiny.batch([tiny.sample()])
    with trim(model, YOPO(window=3)):
        with pytest.raises(UnsupportedGenerationError, match="leave out `output_attentions`"):
            model(**inputs, output_attentions=True)
        model.activation_checkpointing_enable()
        model.train()
        with pytest.raises(UnsupportedGenerationError, match="activation_checkpointing_disable"):
            model(**inputs)


def test_a_window_needs_a_grid():
    model, sample = tiny.shared(), tiny.sample(1, 9)
    inputs = tiny.batch([sample])
    ids = torch.cat([inputs["input_ids"][:, :4], inputs["input_ids"][:, 6:]], 1)
    features = model.get_image_features(inputs["pixel_values"], return_dict=True)
    features.pooler_output = [features.pooler_output[0][2:]]
    refused = pytest.raises(UnsupportedGenerationError, match=r"the same grid.*window=none")
    with torch.no_grad(), trim(model, YOPO(window=3)), refused:
        model(input_ids=ids, mm_encoder_outputs={"image": features})
    with torch.no_grad(), trim(model, YOPO(ffn=0.5)):
        model(input_ids=ids, mm_encoder_outputs={"image": features})


def test_notation():
    method = parse_method("yopo:window=5,heads=some/where.safetensors,layer=none,ffn=0.5,normalize=all")
    assert method == YOPO(5, "some/where.safetensors", None, 0.5, "all")
    assert parse_method(str(method)) == method
    assert get_method("yopo") == YOPO()
    assert YOPO().acting_stages == ()
    assert compose(YOPO(window=5), FastV()).stages == ("structure", "prefill")
    with pytest.raises(ValueError, match="both act in the prefill stage"):
        compose(YOPO(layer=2), FastV())
    with pytest.raises(ValueError, match="both act in the structure stage"):
        compose(YOPO(window=3), YOPO(ffn=0.5))
