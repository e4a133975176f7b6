"""What the images of a prompt became when they were encoded: noted until the decoder begins."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput

from vistrim.architectures import ModelSpec
from vistrim.core.layout import ImageShape, Picture
from vistrim.engine.hooks import Hooks
from vistrim.engine.inputs.shrinking import Shrinking
from vistrim.engine.inputs.tower import TowerRecord


@dataclass
class Encodings:
    """The images and videos that one generation (or bare forward pass) has encoded.

    Attributes
    ----------
    shapes : dict
        For each modality, how the visual tokens of its images lie.
    vision : TowerRecord or None
        What the vision tower computed, if the method asks for it.
    encoding : bool
        Whether an encoder is at work: that of videos may call that of images.
    awaited : list of str
        Modalities that the encoder of images is still to encode, in order, where it does not encode images alone.
    shrinking : Shrinking or None
        How images are shrunk before, if the method has that done.
    """

    shapes: dict[str, list[ImageShape]] = field(default_factory=dict)
    vision: TowerRecord | None = None
    encoding: bool = False
    awaited: list[str] = field(default_factory=list)
    shrinking: Shrinking | None = None

    @property
    def images(self) -> tuple[Picture, ...]:
        """All pictures that were encoded."""
        return tuple(picture for images in self.shapes.values() for image in images for picture in image.pictures)


FindEncodings = Callable[[], Encodings | None]
"""Returns where the thread that asks takes its notes, if it takes any."""


def watch_encoder(spec: ModelSpec, find: FindEncodings, hooks: Hooks) -> None:
    """Have it noted how the visual tokens of whatever the model encodes lie."""
    for modality in spec.visual_token_ids:
        name = f"get_{modality}_features"
        if hasattr(spec.base, name):
            hooks.shadow(spec.base, name, _noting(spec, modality, getattr(spec.base, name), find))


def awaited(spec: ModelSpec, call: Mapping[str, Any]) -> list[str]:
    """What the encoder of images will be given in a forward pass, if it has to encode videos too (Perception LM)."""
    if "video" not in spec.visual_token_ids or hasattr(spec.base, "get_video_features"):
        return []
    given = {"image": "pixel_values", "video": "pixel_values_videos"}
    return [modality for modality, name in given.items() if call.get(name) is not None]


def encode_first(spec: ModelSpec, call: dict[str, Any]) -> None:
    """Encode images before the base model's forward pass begins, as ``generate`` does, if it is the decoder's too.

    Otherwise they would be encoded when it is too late to ask what enters the decoder (Chameleon).
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
            arguments = signature.bind(*args, **kwargs).arguments
            kind = notes.awaited.pop(0) if notes.awaited else modality
            if notes.vision is not None:
                notes.vision.finish(kind, arguments)
            shapes = spec.images.shapes(kind, arguments, feature_lengths(output))
            notes.shapes[kind] = shapes if shrinking is None else [*map(shrinking.shape, shapes)]
        return output

    return noting


def feature_lengths(output: Any) -> list[int]:
    """Visual tokens of each entry of encoded features: a list ``[tokens, hidden]`` each, or one tensor."""
    features = output.pooler_output if output.pooler_output is not None else output.last_hidden_state
    if isinstance(features, Tensor):
        return [features.shape[1]] * features.shape[0] if features.dim() == 3 else [features.shape[0]]
    return [n for entry in features for n in ([entry.shape[-2]] * entry.shape[:-2].numel())]


def given_shapes(
    spec: ModelSpec, encoded: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, list[ImageShape]]:
    """How features lie that were encoded elsewhere and given among the arguments of a call."""
    known = {name: value for name, value in arguments.items() if value is not None}
    found = {}
    for modality, output in encoded.items():
        if output is None:
            continue
        found[modality] = _shapes(spec, modality, known, feature_lengths(output))
    return found


def merged_shapes(spec: ModelSpec, ids: Tensor, arguments: Mapping[str, Any]) -> dict[str, list[ImageShape]]:
    """How features lie that are inside the embeddings already, which ``ids`` ``[samples, tokens]`` stand for.

    Where images have no fixed number of tokens, each run of placeholders is taken for one.
    """
    known = {name: value for name, value in arguments.items() if value is not None}
    found = {}
    for modality, token in spec.visual_token_ids.items():
        lengths = [n for row in ids == token for n in _images(row, spec.images.tokens)]
        if lengths:
            found[modality] = _shapes(spec, modality, known, lengths)
    return found


def _images(places: Tensor, size: int | None) -> list[int]:
    """Tokens of each image of a prompt, of which ``places`` ``[tokens]`` bool are visual."""
    total = int(places.sum())
    if size and total % size == 0:
        return [size] * (total // size)
    values, runs = places.unique_consecutive(return_counts=True)
    return runs[values].tolist()


def _shapes(spec: ModelSpec, modality: str, known: Mapping[str, Any], lengths: list[int]) -> list[ImageShape]:
    """How features lie, by arguments of the call as far as these are about them."""
    shapes = spec.images.shapes(modality, known, lengths)
    # Sizes may be those of all turns, or of a prompt that beams repeat, and not of these features.
    if sum(image.tokens for image in shapes) != sum(lengths):
        shapes = spec.images.shapes(modality, {}, lengths)
    return shapes
