"""Layout of the encoded images of a prompt, recorded until the decoder runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from vistrim.architectures import ModelSpec
from vistrim.core.layout import ImageShape, Picture
from vistrim.engine.hooks import Hooks
from vistrim.engine.inputs.shrinking import Shrinking
from vistrim.engine.inputs.tower import TowerRecord


@dataclass
class Encodings:
    """The images and videos encoded in one generation or bare forward pass.

    Attributes
    ----------
    shapes : dict
        Layout of the visual tokens of the images, for each modality.
    vision : TowerRecord or None
        Record of the vision tower, if the method reads it.
    encoding : bool
        Whether an encoder is running. The encoder of videos may call that of images.
    awaited : list of str
        Modalities that the encoder of images will still encode, in order, if it also encodes videos.
    shrinking : Shrinking or None
        Downsampling of images before the vision tower, if the method requires it.
    """

    shapes: dict[str, list[ImageShape]] = field(default_factory=dict)
    vision: TowerRecord | None = None
    encoding: bool = False
    awaited: list[str] = field(default_factory=list)
    shrinking: Shrinking | None = None

    @property
    def images(self) -> tuple[Picture, ...]:
        """All encoded images, tiles and frames."""
        return tuple(picture for images in self.shapes.values() for image in images for picture in image.pictures)


FindEncodings = Callable[[], Encodings | None]
"""Returns the record of the calling thread, if it has one."""


def watch_encoder(spec: ModelSpec, find: FindEncodings, hooks: Hooks) -> None:
    """Record the layout of the visual tokens of all images and videos that the model encodes."""
    for modality in spec.visual_token_ids:
        name = f"get_{modality}_features"
        if hasattr(spec.base, name):
            hooks.shadow(spec.base, name, _noting(spec, modality, getattr(spec.base, name), find))


def awaited(spec: ModelSpec, call: Mapping[str, Any]) -> list[str]:
    """List the inputs of the encoder of images in a forward pass, if it also encodes videos (Perception LM)."""
    if "video" not in spec.visual_token_ids or hasattr(spec.base, "get_video_features"):
        return []
    given = {"image": "pixel_values", "video": "pixel_values_videos"}
    return [modality for modality, name in given.items() if call.get(name) is not None]


def encode_first(spec: ModelSpec, call: dict[str, Any]) -> None:
    """Encode images before the forward pass of a base model that is also the decoder (Chameleon).

    ``generate`` does the same. Otherwise they would be encoded too late for a cut before the decoder.
    """
    if spec.base is not spec.decoder:
        return
    encoded = dict(call.get("mm_encoder_outputs") or {})
    for modality in spec.visual_token_ids:
        encode = getattr(spec.base, f"get_{modality}_features")
        names = [name for name in inspect.signature(encode).parameters if call.get(name) is not None]
        if any(name.startswith("pixel_values") for name in names):
            encoded[modality] = encode(**{name: call.pop(name) for name in names}, return_dict=True)
    if encoded:
        call["mm_encoder_outputs"] = encoded


def _noting(spec: ModelSpec, modality: str, encode: Callable[..., Any], find: FindEncodings) -> Callable[..., Any]:
    signature = inspect.signature(encode)

    @functools.wraps(encode)
    def noting(*args: Any, **kwargs: Any) -> Any:
        notes = find()
        if notes is None or notes.encoding:
            return encode(*args, **kwargs)
        notes.encoding = True
        shrinking = notes.shrinking
        try:
            if shrinking is None:
                output = encode(*args, **kwargs)
            else:
                bound = signature.bind(*args, **kwargs).arguments
                output = encode(**shrinking.arguments(bound | bound.pop("kwargs", {})))
                shrinking.fill(output)
        finally:
            notes.encoding = False
        if isinstance(output, ModelOutput):
            arguments = _with_sizes_on_host(signature.bind(*args, **kwargs).arguments)
            kind = notes.awaited.pop(0) if notes.awaited else modality
            if notes.vision is not None:
                notes.vision.finish(kind, arguments)
            shapes = spec.images.shapes(kind, arguments, feature_lengths(output))
            notes.shapes[kind] = shapes if shrinking is None else [*map(shrinking.shape, shapes)]
        return output

    return noting


def _with_sizes_on_host(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Copy sizes of images to the host once, because several readers of the arguments need them there."""
    return {
        name: value.cpu() if isinstance(value, Tensor) and value.dtype == torch.long and value.dim() <= 2 else value
        for name, value in arguments.items()
    }


def feature_lengths(output: Any) -> list[int]:
    """Count the visual tokens of each entry of encoded features, a list of ``[tokens, hidden]`` or one tensor."""
    features = output.pooler_output if output.pooler_output is not None else output.last_hidden_state
    if isinstance(features, Tensor):
        return [features.shape[1]] * features.shape[0] if features.dim() == 3 else [features.shape[0]]
    return [n for entry in features for n in ([entry.shape[-2]] * entry.shape[:-2].numel())]


def given_shapes(
    spec: ModelSpec, encoded: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, list[ImageShape]]:
    """Find the layout of features that were encoded before and passed as arguments of a call."""
    known = {name: value for name, value in arguments.items() if value is not None}
    found = {}
    for modality, output in encoded.items():
        if output is None:
            continue
        found[modality] = _shapes(spec, modality, known, feature_lengths(output))
    return found


def merged_shapes(spec: ModelSpec, ids: Tensor, arguments: Mapping[str, Any]) -> dict[str, list[ImageShape]]:
    """Find the layout of features that are part of the embeddings of ``ids`` ``[samples, tokens]``.

    If images do not have a fixed number of tokens, each run of placeholders is treated as one image.
    """
    known = {name: value for name, value in arguments.items() if value is not None}
    found = {}
    for modality, token in spec.visual_token_ids.items():
        lengths = [n for row in ids == token for n in _images(row, spec.images.tokens)]
        if lengths:
            found[modality] = _shapes(spec, modality, known, lengths)
    return found


def _images(places: Tensor, size: int | None) -> list[int]:
    """Count the tokens of each image of a prompt with the visual tokens ``places`` ``[tokens]`` bool."""
    total = int(places.sum())
    if size and total % size == 0:
        return [size] * (total // size)
    values, runs = places.unique_consecutive(return_counts=True)
    return runs[values].tolist()


def _shapes(spec: ModelSpec, modality: str, known: Mapping[str, Any], lengths: list[int]) -> list[ImageShape]:
    """Find the layout of features from the arguments of a call, if these refer to them."""
    shapes = spec.images.shapes(modality, known, lengths)
    # The sizes may be those of all turns, or of a prompt repeated for beams, instead of these features.
    if sum(image.tokens for image in shapes) != sum(lengths):
        shapes = spec.images.shapes(modality, {}, lengths)
    return shapes
