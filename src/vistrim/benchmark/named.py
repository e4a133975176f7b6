"""Models of a named shape with random weights, and their prompts."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from vistrim.benchmark.inputs import make_inputs
from vistrim.benchmark.memory import Needs, needs
from vistrim.benchmark.memory_limit import check_memory
from vistrim.benchmark.shapes import SHAPES, Shape
from vistrim.benchmark.subject import Wanted
from vistrim.benchmark.weights import empty_model, fill, generate_to_the_end, use_kernel
from vistrim.errors import BenchmarkError
from vistrim.loading import resolve_dtype

PAD = 0


def make_named(wanted: Wanted, device: torch.device) -> tuple[Any, dict[str, Tensor], dict[str, str]]:
    """Make a model of a named shape.

    Parameters
    ----------
    wanted : Wanted
        Request; its ``model`` is a name in ``SHAPES``.
    device : torch.device
        Device of the model.

    Returns
    -------
    model : PreTrainedModel
    inputs : dict of str to Tensor
    details : dict of str to str
        The checkpoint with these sizes, and the images of each sample.

    Raises
    ------
    BenchmarkError
        If the prompt, size or attention kernel is not available, or memory is too small.
    """
    shape = SHAPES[wanted.model]
    layers = wanted.layers or shape.layers
    if wanted.distinct_layers is not None and wanted.distinct_layers > layers:
        raise BenchmarkError(f"the model has {layers} layers: use at most {layers} distinct layers")
    images = shape.images
    count = images.count(wanted.visual_tokens)
    dtype = resolve_dtype(wanted.dtype)
    if not isinstance(dtype, torch.dtype):
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    length = count * images.tokens + wanted.text_tokens + wanted.new_tokens

    check_memory(wanted, device, _needs_of(shape, dtype), _smaller(shape, wanted))
    config = shape.config(wanted.layers, wanted.hidden, length)
    model = empty_model(config, dtype, wanted.attn)
    inputs = make_inputs(config, images, count, wanted.batch, wanted.text_tokens, device)
    fill(model, wanted.distinct_layers or layers, device)
    generate_to_the_end(model, PAD)
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    shown = f"{count} of {images.height} x {images.width} pixels"
    return model, cast, {"shape_of": shape.source, "images": shown}


def _needs_of(shape: Shape, dtype: torch.dtype) -> Any:
    """A function that returns the needs of a version of a shape; its models have no storage."""

    @cache
    def sized(layers: int | None, hidden: int | None, length: int, attn: str | None) -> Any:
        config = shape.config(layers, hidden, length)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
        use_kernel(model, attn)
        return model

    def needed(wanted: Wanted) -> Needs:
        count = shape.images.count(wanted.visual_tokens)
        length = count * shape.images.tokens + wanted.text_tokens + wanted.new_tokens
        model = sized(wanted.layers, wanted.hidden, length, wanted.attn)
        nowhere = torch.device("meta")
        inputs = make_inputs(model.config, shape.images, count, wanted.batch, wanted.text_tokens, nowhere)
        return needs(model, inputs, wanted.new_tokens, wanted.distinct_layers or wanted.layers or shape.layers)

    return needed


def _smaller(shape: Shape, wanted: Wanted) -> dict[str, range]:
    layers, hidden = wanted.layers or shape.layers, wanted.hidden or shape.hidden
    return {
        "batch": range(1, wanted.batch),
        "distinct_layers": range(1, wanted.distinct_layers or layers),
        "layers": range(max(2, wanted.distinct_layers or 2), layers),
        "hidden": range(shape.head_dim, hidden, shape.head_dim),
    }
