"""What vistrim can do for a model, found out from its configuration alone: no weight is fetched or made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache

from vistrim.architectures import ModelSpec, discover
from vistrim.errors import UnsupportedModelError
from vistrim.loading import read_config
from vistrim.methods import get_method, list_methods
from vistrim.methods.base import Method
from vistrim.trimming import trim


@dataclass(frozen=True)
class MethodSupport:
    """Whether a method runs on a model.

    Attributes
    ----------
    name : str
        The method.
    works : bool
        Whether it does, with its default parameters or with ``parameters``.
    parameters : dict
        What has to be set for it; empty if the defaults do.
    reason : str
        Why it does not, with the fix; empty if it does.
    """

    name: str
    works: bool
    parameters: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class ModelSupport:
    """What vistrim can do for a model.

    Attributes
    ----------
    model, model_type, architecture : str
        Name or path, type and class.
    tested : bool
        Whether the family matrix (docs/support.md) covers the class.
    reason : str
        Why it cannot be trimmed; empty if it can. The fields below say nothing then.
    layers, hidden, heads, kv_heads : int
        Sizes of the decoder (of its first layer, where layers differ).
    windows : tuple of int
        Number of layers with a sliding window, and the shortest window in tokens; (0, 0) without.
    rope_axes : int
        1, or 3 for M-RoPE.
    modalities : tuple of str
        "image", "video".
    grid : tuple of int or None
        Rows and columns of an image's visual tokens; None: images have several sizes.
    reads_tower : bool
        Whether methods can rank by what the vision tower attends to.
    methods : tuple of MethodSupport
        One for each method.
    """

    model: str
    model_type: str
    architecture: str
    tested: bool = False
    reason: str = ""
    layers: int = 0
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    windows: tuple[int, int] = (0, 0)
    rope_axes: int = 1
    modalities: tuple[str, ...] = ()
    grid: tuple[int, int] | None = None
    reads_tower: bool = False
    methods: tuple[MethodSupport, ...] = ()


def describe_support(name_or_path: str | Path) -> ModelSupport:
    """Find out what vistrim can do for a model before its weights are downloaded.

    Parameters
    ----------
    name_or_path : str or Path
        As in `vistrim.load`.

    Raises
    ------
    LoadError
        If there is no such model, or it does not read images.
    """
    config = read_config(name_or_path)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    about = ModelSupport(str(name_or_path), config.model_type, type(model).__name__)
    try:
        spec = discover(model)
    except UnsupportedModelError as error:
        return replace(about, reason=str(error))
    windows = [layer.sliding_window for layer in DynamicCache(config=spec.decoder.config).layers if layer.is_sliding]
    shape = spec.decoder_shape
    return replace(
        about,
        tested=spec.is_tested,
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        windows=(len(windows), min(windows, default=0)),
        rope_axes=spec.rope_axes,
        modalities=tuple(spec.visual_token_ids),
        grid=spec.images.grid,
        reads_tower=spec.images.tower is not None,
        methods=tuple(_method(model, spec, info.name) for info in list_methods()),
    )


def _method(model: Any, spec: ModelSpec, name: str) -> MethodSupport:
    method = get_method(name)
    needed = {}
    if spec.rope_axes > 1 and getattr(method, "positions", None) == "renumber":
        needed = {"positions": "original"}
        method = get_method(name, **needed)
    reason = _refusal(model, method)
    return MethodSupport(name, not reason, {} if reason else needed, reason)


def _refusal(model: Any, method: Method) -> str:
    try:
        trim(model, method)
    except (UnsupportedModelError, ValueError) as error:
        return str(error)
    return ""
