"""What vistrim can do with a model, found out from its config alone: no weights are fetched, and none are made."""

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
from vistrim.engine.requirements import (
    check_grid,
    check_norm,
    check_positions,
    layer_cuts,
    shrinking,
    vision_reads,
)
from vistrim.errors import UnsupportedModelError
from vistrim.loading import building_error, load_config
from vistrim.methods import Method, get_method, list_methods
from vistrim.processor_packages import missing_packages

Runs = Literal["yes", "needs", "no"]
"""Whether a method runs on a model: as it is by default, once it is given something, or not at all."""


@dataclass(frozen=True)
class MethodSupport:
    """Whether one method, with its default parameters, runs on a model.

    Attributes
    ----------
    name : str
        The method's name.
    stages : tuple of str
        Where it acts.
    runs : {"yes", "needs", "no"}
        "needs": with another parameter, or once it is given a file or a guide.
    reason : str
        Why not, or what it needs; empty if it runs.
    """

    name: str
    stages: tuple[str, ...]
    runs: Runs
    reason: str


@dataclass(frozen=True)
class ModelSupport:
    """What vistrim can do with a model.

    Attributes
    ----------
    model : str
        Its class, and where its config came from.
    model_type : str
        transformers' name for its family.
    tested : bool
        Whether the family is one of those that vistrim's tests run through the whole engine.
    layers, hidden, heads, kv_heads : int
        Sizes of the decoder (of its first layer, where layers differ).
    rope_axes : int
        1, or 3 for M-RoPE, whose positions have a time, a row and a column.
    windows : tuple of int or None
        For each layer: tokens that its attention looks back over; None: all.
    longest : int or None
        Tokens of the longest prompt with its answer; None: there is no limit.
    modalities : tuple of str
        What becomes visual tokens: "image", "video".
    grid : tuple of int or None
        Rows and columns of the visual tokens of a picture; None: there are several sizes, or it is not known.
    reads_tower : bool
        Whether methods that read the vision tower can run.
    methods : tuple of MethodSupport
        All methods, in alphabetical order.
    missing_packages : tuple of str
        What the usual processor of the family needs and what is not installed; they are in the extra ``processors``.
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
    """Find out what a model supports before its weights are downloaded.

    Parameters
    ----------
    model : str, Path or PreTrainedConfig
        What `vistrim.load` takes, of which only the config is read; or a config.

    Returns
    -------
    ModelSupport

    Raises
    ------
    LoadError
        If there is no such config, or no model can be built from it.
    UnsupportedModelError
        If the model cannot be trimmed; the message gives the reason.

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
    """A model whose parameters have shapes and no storage."""
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
        # What the model lacks is said before what the method lacks.
        vision_reads(method, spec)
        check_grid(method, spec)
        check_norm(method, spec)
        shrinking(method, spec)
        check_positions(method, spec)
        fitted = method.fitted(spec.facts)
        vision_reads(fitted, spec)
        layer_cuts(fitted, spec)
    except UnsupportedModelError as error:
        return "no", str(error)
    except ValueError as error:
        return "needs", str(error)
    return "yes", ""
