"""Support of a model, determined from its config alone. No weights are downloaded or allocated."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText
from transformers.cache_utils import DynamicCache

from vistrim.architectures import ModelSpec, discover
from vistrim.architectures.tested import TESTED
from vistrim.core.layout import Grid
from vistrim.engine.releases import check_runs
from vistrim.engine.requirements import check_grid, check_positions, layer_cuts, vision_reads
from vistrim.errors import UnsupportedModelError
from vistrim.loading import building_error, load_config
from vistrim.methods import Method, get_method, list_methods
from vistrim.processor_packages import missing_packages

Runs = Literal["yes", "needs", "no"]
"""Whether a method runs on a model: with default parameters, with additional inputs, or not at all."""


@dataclass(frozen=True)
class MethodSupport:
    """Whether one method, with its default parameters, runs on a model.

    Attributes
    ----------
    name : str
        Name of the method.
    stages : tuple of str
        Stages in which it acts.
    runs : {"yes", "needs", "no"}
        "needs": only with other parameters, a file or a guide model.
    reason : str
        Why it does not run, or the inputs that it needs. Empty if it runs.
    """

    name: str
    stages: tuple[str, ...]
    runs: Runs
    reason: str


@dataclass(frozen=True)
class ModelSupport:
    """Support of a model.

    Attributes
    ----------
    model : str
        Class of the model, and source of its config.
    model_type : str
        Model type in transformers.
    tested : bool
        Whether the tests of vistrim run this model family through the whole engine.
    layers, hidden, heads, kv_heads : int
        Sizes of the decoder, or of its first layer if the layers differ.
    rope_axes : int
        Number of axes of a RoPE position: 1, or 3 (time, row, column) for M-RoPE.
    windows : tuple of int or None
        Sliding window of each layer, in tokens. None: full attention.
    longest : int or None
        Maximum number of tokens of prompt and answer. None: no maximum.
    modalities : tuple of str
        Inputs that become visual tokens: "image", "video".
    grid : tuple of int or None
        Rows and columns of the visual tokens of an image, tile or frame. None: the grid varies or is not known.
    reads_tower : bool
        Whether methods that read the vision tower can run.
    methods : tuple of MethodSupport
        All methods, in alphabetical order.
    missing_packages : tuple of str
        Packages of the extra ``processors`` that the default processor of the family needs and that are not installed.
    """

    model: str
    model_type: str
    tested: bool
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    rope_axes: int
    windows: tuple[int | None, ...]
    longest: int | None
    modalities: tuple[str, ...]
    grid: Grid | None
    reads_tower: bool
    methods: tuple[MethodSupport, ...]
    missing_packages: tuple[str, ...]


def describe_support(model: str | Path | Any) -> ModelSupport:
    """Describe the support of a model before its weights are downloaded.

    Parameters
    ----------
    model : str, Path or PreTrainedConfig
        A config, or a name or path that `vistrim.load` accepts. Only the config is loaded.

    Returns
    -------
    ModelSupport
        Sizes of the model, and the methods that run on it.

    Raises
    ------
    LoadError
        If there is no such config, or no model can be built from it.
    UnsupportedModelError
        If the model cannot be trimmed. The message states the reason.

    Examples
    --------
    >>> found = vistrim.describe_support("reference")
    >>> [method.name for method in found.methods if method.runs == "yes"]
    """
    config = load_config(model) if isinstance(model, (str, Path)) else copy.deepcopy(model)
    spec = discover(_without_weights(config))
    check_runs(spec.model_type)
    shape = spec.decoder_shape
    return ModelSupport(
        model=spec.name,
        model_type=spec.model_type,
        tested=spec.model_type in TESTED,
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        rope_axes=spec.rope_axes,
        windows=_windows(spec),
        longest=spec.longest,
        modalities=tuple(spec.visual_token_ids),
        grid=spec.images.grid,
        reads_tower=spec.images.tower is not None,
        methods=tuple(_describe(get_method(info.name), spec) for info in list_methods()),
        missing_packages=missing_packages(config.model_type),
    )


def _without_weights(config: Any) -> Any:
    """Build a model whose parameters have shapes but no storage."""
    try:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise building_error(config.model_type, error) from error


def _windows(spec: ModelSpec) -> tuple[int | None, ...]:
    layers = DynamicCache(config=spec.decoder.config).layers
    return tuple(getattr(layer, "sliding_window", None) if layer.is_sliding else None for layer in layers)


def _describe(method: Method, spec: ModelSpec) -> MethodSupport:
    runs, reason = _runs(method, spec)
    return MethodSupport(method.name, method.stages, runs, " ".join(reason.split()))


def _runs(method: Method, spec: ModelSpec) -> tuple[Runs, str]:
    try:
        # Missing features of the model are reported before missing inputs of the method.
        vision_reads(method, spec)
        check_grid(method, spec)
        check_positions(method, spec)
        fitted = method.fitted(spec.facts)
        vision_reads(fitted, spec)
        layer_cuts(fitted, spec)
    except UnsupportedModelError as error:
        return "no", str(error)
    except ValueError as error:
        return "needs", str(error)
    return "yes", ""
