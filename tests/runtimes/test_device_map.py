"""Models whose parts are on several devices, or not on any until they run, as accelerate dispatches them."""

from functools import cache

import accelerate
import pytest
import torch

from tests import guides, tiny
from tests.closeness import close
from tests.covering import covering
from tests.families.depth import slow_beside, slow_unless
from tests.families.zoo import FAMILIES, shared
from tests.runtimes import flash_kernels
from tests.runtimes.devices import several_devices
from tests.tiny import generate, logits
from vistrim import (
    SGL,
    ST3,
    VTW,
    YOPO,
    FasterVLM,
    FastV,
    Pool,
    PSigmoid,
    PyramidDrop,
    SparseVLM,
    UnsupportedModelError,
    VisPruner,
    trim,
)
from vistrim.engine.releases import CACHE

FIRST, SECOND = "cuda:0", "cuda:1"
NEW_TOKENS = 2
HEADS = ((True,) * 4, (False, True, True, False), (False,) * 4, (True, False) * 2)
METHODS = {
    "st3": ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
    "pyramiddrop": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2), positions="original"),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2), positions="original"),
    "sparsevlm-plus": SparseVLM(variant="plus", layers=(0, 2), counts=(6, 2)),
}
LLAVA_METHODS = {
    "fastervlm": FasterVLM(5),
    "vispruner": VisPruner(7, positions="original"),
    "fastv-renumber": FastV(2, 0.4, "renumber"),
    "pyramiddrop-renumber": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2)),
    "sparsevlm-1.0": SparseVLM(variant="1.0", layers=(0, 2), mean_keep=64),
    "vtw": VTW(3),
    "pool": Pool(0.3),
    "psigmoid": PSigmoid(mean_keep=0.55, kappa=1.5),
    "yopo": YOPO(3, HEADS, 3, 0.5),
}
OTHERS = ("qwen2_5_vl", "qwen3_vl", "internvl")
LAYERS = {"halves": lambda i: i >= 2, "all": lambda i: True, "turns": lambda i: i % 2 == 1}
"""Which layers are on the second GPU; the tower, the embeddings and RoPE are on the first."""
CASES = [
    *(("llava", method, layers) for method in METHODS | LLAVA_METHODS for layers in ("halves", "turns")),
    *(("llava", method, "all") for method in METHODS),
    *((name, method, "turns") for name in OTHERS for method in METHODS),
]

DIFFERENT = ("st3", "pyramiddrop", "sparsevlm", "fastervlm", "psigmoid", "yopo")
"""One of those that read, move and merge the same tensors."""
EVERY_RUN = [("llava", method, "turns") for method in DIFFERENT]


def method_called(name):
    return (METHODS | LLAVA_METHODS)[name]


def prompts(family):
    return [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]


def blocks(model):
    """Names of the parts, and of single weights, that are placed as wholes."""
    names = {module: name for name, module in model.named_modules()}
    decoder = model.get_decoder()
    around = {model, model.base_model, decoder, decoder.layers}
    parts = [child for module in around for child in module.children()]
    found = [names[part] for part in parts if part not in around and any(True for _ in part.parameters())]
    single = [f"{names[module]}.{name}" for module in around for name, _ in module.named_parameters(recurse=False)]
    return found + single


def dispatched(name, layers):
    """A model on two GPUs; the head is where the last layer is, unless it is the embeddings' twin."""
    model = FAMILIES[name].build()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    where = {}
    for block in blocks(model):
        *_, parent, number = ("", *block.split("."))
        on_second = LAYERS[layers](int(number)) if parent == "layers" else number == "norm"
        where[block] = SECOND if on_second or (block == "lm_head" and not tied) else FIRST
    return accelerate.dispatch_model(model, where, main_device=FIRST, force_hooks=True)


def on_first(inputs):
    return {key: value.to(FIRST) for key, value in inputs.items()}


@pytest.fixture
def gpus(monkeypatch):
    with several_devices(monkeypatch):
        yield


@cache
def on_one_device(name, method):
    """Logits of the trimmed model as a whole, and its report."""
    family = FAMILIES[name]
    with trim(shared(name), method_called(method)) as run:
        output = generate(shared(name), family.batch(prompts(family)), NEW_TOKENS)
    return logits(output), run.report


_dispatched = {}


def placed(name, layers):
    if (name, layers) not in _dispatched:
        _dispatched[name, layers] = dispatched(name, layers)
    return _dispatched[name, layers]


@pytest.mark.parametrize(("name", "method", "layers"), slow_unless(lambda case: case in EVERY_RUN, CASES))
def test_two_gpus(name, method, layers, gpus):
    family, model = FAMILIES[name], placed(name, layers)
    inputs = family.batch(prompts(family))
    alone, expected = on_one_device(name, method)
    with trim(model, method_called(method)) as run:
        found = logits(generate(model, on_first(inputs), NEW_TOKENS))
    assert close(found.cpu(), alone)
    assert run.report.stages == expected.stages
    assert run.report.kv_bytes == expected.kv_bytes


@covering(1)
@pytest.mark.parametrize("method", ["st3", "sparsevlm"])
@pytest.mark.parametrize("begun", ["trimmed", "untrimmed"])
def test_two_turns_on_two_gpus(method, begun, gpus):
    """Also on a padded cache that was filled before the model was trimmed."""
    family, found = FAMILIES["llava"], []
    samples = [family.sample(1, 9), family.sample(2, 14, seed=1)]
    new = [family.sample(1, 6, seed=3), family.sample(1, 6, seed=4)]
    for model, to in ((shared("llava"), lambda inputs: inputs), (placed("llava", "turns"), on_first)):
        inputs = to(family.batch(samples))
        if begun == "untrimmed":
            first = generate(model, inputs, NEW_TOKENS)
        with trim(model, METHODS[method]):
            if begun == "trimmed":
                first = generate(model, inputs, NEW_TOKENS)
            ids = torch.cat([first.sequences, torch.tensor([s.ids for s in new], device=first.sequences.device)], 1)
            grown = ids.shape[1] - inputs["attention_mask"].shape[1]
            mask = torch.cat([inputs["attention_mask"], torch.ones(2, grown, dtype=torch.long, device=ids.device)], 1)
            pixels = torch.cat([s.media["pixel_values"] for s in new]).to(ids.device)
            turn = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
            found.append(logits(generate(model, turn, NEW_TOKENS, **{CACHE: first[CACHE]})).cpu())
    assert close(found[0], found[1])


@pytest.mark.parametrize("method", slow_beside(["st3"], ["st3", "pyramiddrop", "sparsevlm"]))
def test_beams_on_two_gpus(method, gpus):
    family, found = FAMILIES["llava"], []
    inputs = family.batch(prompts(family)[:2])
    for model, given in ((shared("llava"), inputs), (placed("llava", "halves"), on_first(inputs))):
        with trim(model, METHODS[method]):
            found.append(generate(model, given, NEW_TOKENS, num_beams=2, output_scores=True).sequences_scores.cpu())
    assert close(found[0], found[1])


@pytest.mark.parametrize("method", slow_beside(["sparsevlm"], ["st3", "pyramiddrop", "sparsevlm"]))
def test_flash_attention_on_two_gpus(method, gpus, monkeypatch):
    name = "llava_next-sliding"
    family = FAMILIES[name]
    inputs = family.batch(prompts(family))
    with flash_kernels.installed(monkeypatch):
        model = flash_kernels.use_flash(dispatched(name, "halves"))
        with trim(model, METHODS[method]):
            found = logits(generate(model, on_first(inputs), NEW_TOKENS))
    with trim(shared(name), METHODS[method]):
        expected = logits(generate(shared(name), inputs, NEW_TOKENS))
    assert close(found.cpu(), expected)


def offloaded(name, way, folder):
    """A model of whose weights some or all are elsewhere until they are used."""
    model = FAMILIES[name].build()
    if way == "all on disk":
        return accelerate.disk_offload(model, folder, execution_device="cpu")
    if way == "all in memory":
        return accelerate.cpu_offload(model, execution_device="cpu")
    where = {block: "disk" if ".layers." in block and int(block[-1]) % 2 else "cpu" for block in blocks(model)}
    return accelerate.dispatch_model(model, where, main_device="cpu", offload_dir=folder, force_hooks=True)


WAYS = ("all on disk", "all in memory", "half on disk")


@pytest.mark.parametrize("name", slow_beside(["llava"], ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl"]))
@pytest.mark.parametrize("way", WAYS)
def test_offloaded_weights(name, way, tmp_path):
    family, model = FAMILIES[name], offloaded(name, way, tmp_path)
    inputs = family.batch(prompts(family))
    for name_of_method, method in METHODS.items():
        alone, expected = on_one_device(name, name_of_method)
        with trim(model, method) as run:
            assert torch.equal(logits(generate(model, inputs, NEW_TOKENS)), alone)
        assert run.report.stages == expected.stages


def test_weights_that_are_offloaded_while_the_model_is_trimmed():
    family = FAMILIES["llava"]
    inputs = family.batch(prompts(family))
    with trim(shared("llava"), METHODS["pyramiddrop"]):
        expected = logits(generate(shared("llava"), inputs, NEW_TOKENS))
    model = FAMILIES["llava"].build()
    untouched = logits(generate(model, inputs, NEW_TOKENS))
    with trim(model, METHODS["pyramiddrop"]):
        accelerate.cpu_offload(model, execution_device="cpu")
        assert torch.equal(logits(generate(model, inputs, NEW_TOKENS)), expected)
    assert torch.equal(logits(generate(model, inputs, NEW_TOKENS)), untouched)


def test_an_offloaded_model_knows_where_it_runs(tmp_path):
    model = offloaded("llava", "all in memory", tmp_path)
    assert model.get_input_embeddings().weight.is_meta
    facts = trim(model, ST3())._engine.spec.facts
    assert (facts.device, facts.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_an_offloaded_model_with_an_offloaded_guide(threshold):
    inputs, found = tiny.batch(tiny.RAGGED), []
    for place in (lambda model: model, lambda model: accelerate.cpu_offload(model, execution_device="cpu")):
        model, guide = place(tiny.build()), place(guides.build())
        with trim(model, SGL(guide, exit_threshold=threshold)) as run:
            found.append((model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist(), run.report.stages))
    assert found[0] == found[1]


def test_cuts_inside_offloaded_layers_are_refused(tmp_path):
    model = offloaded("llava", "all in memory", tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"no plain .*_proj"):
        trim(model, LLAVA_METHODS["yopo"])
