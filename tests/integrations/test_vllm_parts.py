"""The parts of the vLLM plug-in that need no vLLM: what it imports, refuses, reads from a tower and selects."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import vistrim
from tests import tiny
from tests.cli.checkpoint import build_processor
from tests.closeness import close
from tests.integrations.vllm.expected import renumbering
from vistrim.core.layout import ImageShape, Picture
from vistrim.errors import UnsupportedGenerationError, UnsupportedModelError
from vistrim.integrations.vllm import embeds
from vistrim.integrations.vllm.picking import count, pick
from vistrim.integrations.vllm.processing import TrimmedInfo, TrimmedProcessor
from vistrim.integrations.vllm.requirements import (
    CPU_WORKER,
    check_grid,
    check_positions,
    check_tower,
    check_whole_tower,
)
from vistrim.integrations.vllm.settings import read_method
from vistrim.integrations.vllm.tower import TowerReader

SELECTORS = (
    "fastervlm:keep=6",
    "vispruner:keep=6",
    "vtc-cls:keep=6,first_layer=0",
    "divprune:keep=6",
    "divprune:keep=6,center=true",
    "scope:keep=6",
    "holov:keep=6,crops=3",
    "visionzip:dominant=4,contextual=2",
    "uniform:keep=6",
    "random:keep=6",
    "pool:keep=6",
    "fastervlm:keep=1.0",
)
SHAPE = ImageShape((Picture.of((4, 4)),))

IMPORTS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "typer"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import vistrim.integrations.vllm
assert "torch" not in sys.modules
from vistrim.integrations.vllm import places, picking, processing, requirements, tower
own = {name for name in sys.modules if name.startswith("vistrim.")}
allowed = ("vistrim.core", "vistrim.methods", "vistrim.errors", "vistrim._", "vistrim.integrations")
assert not [name for name in own if not name.startswith(allowed)], own
"""


@pytest.mark.slow
def test_it_is_imported_without_transformers_and_the_command_line():
    result = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def config(method):
    return SimpleNamespace(vistrim={"method": method})


def test_selectors_are_read_from_the_config():
    for notation in SELECTORS:
        assert read_method(config(notation)) == vistrim.methods.base.notation.parse_method(notation)


REFUSED = {
    "st3": "acts inside the decoder.*vispruner.*vistrim serve",
    "hybrid": "acts inside the decoder",
    "fastervlm+vta": "vta acts inside the decoder",
    "vscan": "acts inside the decoder",
    "sgl:guide=reference-small": "acts inside the decoder",
    "cdpruner": "reads the question.*embeds",
    "blind": "image by image.*embeds",
    "downsample": "image by image",
    "divprune:over=prompt": "over=image",
    "fastervlm:positions=original": "positions=renumber",
    "vispruned": "did you mean 'vispruner'",
    "vispruner:kept=4": "kept",
    "vispruner:keep=0": "keep",
    "vispruner:keep=1.5": "keep",
}


def test_what_cannot_work_is_refused():
    for method, told in REFUSED.items():
        # vLLM would take a ValueError as a sign that the model has no images.
        with pytest.raises(UnsupportedGenerationError, match=told) as error:
            read_method(config(method))
        assert not isinstance(error.value, ValueError)


def test_positions_fit_the_model():
    with pytest.raises(UnsupportedGenerationError, match="positions=original"):
        read_method(config("vispruner:keep=4"), renumbers=False)
    for method in ("vispruner:keep=4,positions=original", "pool:keep=4"):
        assert not read_method(config(method), renumbers=False).renumbers


def engine(worker="vllm.v1.worker.gpu_worker.Worker", tensor=1, pipeline=1, draft=None):
    """Settings of an engine of vLLM."""
    parallel = SimpleNamespace(worker_cls=worker, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    return SimpleNamespace(parallel_config=parallel, speculative_config=draft)


def test_models_and_engines_that_cannot_work_are_refused():
    check_positions(engine(tensor=2))
    for given, told in (
        (engine(worker=CPU_WORKER), "recompute_mrope_positions.*vistrim serve"),
        (engine(pipeline=2), "pipeline"),
        (engine(draft="eagle"), "speculative"),
    ):
        with pytest.raises(UnsupportedModelError, match=told):
            check_positions(given)
    check_whole_tower(vistrim.DivPrune(4), engine(tensor=2))
    with pytest.raises(UnsupportedModelError, match=r"data-parallel.*divprune"):
        check_whole_tower(vistrim.FasterVLM(4), engine(tensor=2))
    check_grid(vistrim.Pool(4), SHAPE)
    with pytest.raises(UnsupportedModelError, match="uniform or random"):
        check_grid(vistrim.Pool(4), ImageShape((Picture(17),)))
    with pytest.raises(UnsupportedModelError, match=r"pixtral.*vistrim serve"):
        check_tower(SimpleNamespace(vision_config=SimpleNamespace(model_type="pixtral")))


def test_a_missing_or_wrong_entry_is_refused():
    for given in (SimpleNamespace(), SimpleNamespace(vistrim="vispruner"), SimpleNamespace(vistrim={"keep": 4})):
        with pytest.raises(UnsupportedGenerationError, match="hf-overrides"):
            read_method(given)


class Info:
    """Stands for the base class of vLLM."""

    def __init__(self, ctx):
        self.ctx = ctx


class Processor:
    """Stands for the base class of vLLM, which gives images with the same pixels the same identity."""

    def _get_mm_hashes(self, inputs):
        return {"image": list(inputs)}


def identity(method, image):
    """What an image is called in the caches of an engine with this method."""

    class OwnInfo(TrimmedInfo, Info):
        """The mixin on its base class."""

    class OwnProcessor(TrimmedProcessor, Processor):
        """The mixin on its base class."""

        info = OwnInfo(SimpleNamespace(get_hf_config=lambda: config(method)))

    return OwnProcessor()._get_mm_hashes([image])["image"][0]


def test_images_in_caches_belong_to_a_method():
    known = [identity(method, image) for method in ("fastervlm:keep=6", "fastervlm:keep=7") for image in ("a", "b")]
    assert len(set(known)) == len(known)
    assert identity("fastervlm:keep=6", "a") == known[0]


class Kernel(nn.Module):
    """Stands for the attention kernel of a tower of vLLM, whose inputs are read."""

    def forward(self, query, key, value):
        return value


class Block(nn.Module):
    """A block of a tower of transformers that calls a kernel as a block of vLLM does."""

    def __init__(self, block):
        super().__init__()
        self.block, self.kernel = block, Kernel()

    def forward(self, hidden):
        states, attention = self.block.layer_norm1(hidden), self.block.self_attn
        self.kernel(attention.q_proj(states), attention.k_proj(states), attention.v_proj(states))
        return self.block(hidden, None)


@torch.no_grad()
def picked(model, method, pixels):
    """Trimmed embeddings of each image, made as the plug-in makes them."""
    tower, settings = model.base_model.vision_tower, model.config.vision_config
    has_class = settings.model_type == "clip_vision_model"
    blocks = [
        Block(block)
        for block in tower.encoder.layers[: len(tower.encoder.layers) + 1 + model.config.vision_feature_layer]
    ]
    project, reader = model.base_model.multi_modal_projector, None
    if method.reads_vision:
        kernels, heads = [block.kernel for block in blocks], settings.num_attention_heads
        reader = TowerReader(method, kernels, blocks[-1], heads, has_class, int(has_class), project)
    hidden = tower.embeddings(pixels)
    hidden = tower.pre_layrnorm(hidden) if has_class else hidden
    for block in blocks:
        hidden = block(hidden)
    embeddings = project(hidden[:, int(has_class) :])
    values = [None] * len(pixels) if reader is None else reader.take()
    return [pick(method, [SHAPE], *image) for image in zip(embeddings, values, strict=True)]


@torch.no_grad()
def cut_before_decoder(model, method, prompt):
    """What the engine gives to the first decoder layer."""
    seen = []
    with vistrim.trim(model, method):
        layer = model.base_model.language_model.layers[0]
        hook = layer.register_forward_pre_hook(lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True)
        tiny.generate(model, tiny.batch([prompt]), 1)
        hook.remove()
    start = prompt.ids.index(tiny.IMAGE)
    return seen[0][0, start : len(seen[0][0]) - len(prompt.ids) + start + prompt.visual]


def test_tiles_that_the_model_is_given_like_images_are_images():
    embeddings = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    method = vistrim.DivPrune(6)
    joined = pick(method, [ImageShape(SHAPE.pictures * 2)], embeddings, None)
    apart = pick(method, [SHAPE, SHAPE], embeddings, None)
    assert len(joined) == 6
    assert torch.equal(apart, torch.cat([pick(method, [SHAPE], tile, None) for tile in embeddings.split(16)]))


@pytest.mark.parametrize("vision", ["clip_vision_model", "siglip_vision_model"])
def test_the_same_embeddings_as_before_the_decoder_of_transformers(vision):
    model, prompt = tiny.shared(vision=vision), tiny.sample(1, 9)
    for notation in SELECTORS:
        method = renumbering(notation)
        (mine,) = picked(model, method, prompt.pixels)
        theirs = cut_before_decoder(model, method, prompt)
        assert len(mine) == count(method, [SHAPE])
        assert close(mine, theirs), notation


def test_a_tower_that_was_not_read_is_named():
    kernels, output = [Kernel(), Kernel()], nn.Identity()
    reader = TowerReader(vistrim.FasterVLM(4), kernels, output, 2, True, 1, None)
    with pytest.raises(UnsupportedGenerationError, match="compiled graph"):
        reader.take()
    with pytest.raises(UnsupportedGenerationError, match="first_layer"):
        TowerReader(vistrim.VTCCLS(4, first_layer=16), kernels, output, 2, True, 1, None)


def test_embeddings_for_a_vllm_without_the_plug_in():
    model, processor = tiny.shared(), build_processor()
    image = Image.new("RGB", (16, 16), "red")
    for method in ("cdpruner:keep=6", "visionzip:dominant=4,contextual=2", vistrim.DivPrune(6)):
        found = embeds(model, processor, image, "what is w9", method)
        assert found.shape == (6, model.config.text_config.hidden_size)
    with pytest.raises(UnsupportedGenerationError, match="acts inside the decoder"):
        embeds(model, processor, image, "what", "fastervlm+st3")
    with pytest.raises(UnsupportedGenerationError, match="positions=renumber"):
        embeds(model, processor, image, "what", "fastervlm:positions=original")
    with pytest.raises(UnsupportedGenerationError, match="without it"):
        embeds(model, processor, image, "what", "blind")
