"""Make the subject of a benchmark, from a named shape or a checkpoint."""

from collections.abc import Mapping
from typing import Any

from vistrim.benchmark.checkpoints import make_from_checkpoint
from vistrim.benchmark.inputs import visual_tokens
from vistrim.benchmark.named import make_named
from vistrim.benchmark.shapes import SHAPES
from vistrim.benchmark.subject import Subject, Wanted
from vistrim.benchmark.weights import step_bytes
from vistrim.engine import describe
from vistrim.errors import BenchmarkError
from vistrim.loading import is_local, resolve_device


def make_subject(wanted: Wanted) -> Subject:
    """Make what a benchmark measures; memory is checked before any weight is made or read.

    Parameters
    ----------
    wanted : Wanted
        A named shape (``SHAPES``) gets random weights; its dtype "auto" is bfloat16 on an accelerator and float32 on
        the CPU. Any other model is loaded with `vistrim.load`, and shown noise.

    Returns
    -------
    Subject
        Its model generates greedily, and to the end.

    Raises
    ------
    BenchmarkError
        If there is no such shape, prompt or attention kernel, or too little memory; says what there is instead.
    LoadError
        If a checkpoint, dtype or device is not to be had.
    UnsupportedModelError
        If a checkpoint cannot be trimmed.

    Examples
    --------
    >>> subject = make_subject(Wanted("llava-1.5-7b", layers=8, hidden=1024))
    >>> subject.model.generate(**subject.inputs, max_new_tokens=4)
    """
    _check(wanted)
    device = resolve_device(wanted.device)
    make = make_named if wanted.model in SHAPES else make_from_checkpoint
    model, inputs, details = make(wanted, device)
    distinct = {"distinct_layers": wanted.distinct_layers or describe(model).decoder_shape.layers}
    return subject_of(wanted.model, model, inputs, wanted.new_tokens, {**distinct, **details})


def subject_of(
    name: str, model: Any, inputs: Mapping[str, Any], new_tokens: int, details: Mapping[str, Any]
) -> Subject:
    """Describe a model and its prompts as what is measured.

    Parameters
    ----------
    name : str
        The model's name.
    model : PreTrainedModel
        On its device.
    inputs : mapping
        As the processor returns them, for a batch of samples that are alike, on the model's device.
    new_tokens : int
        Tokens generated per sample.
    details : mapping
        What else distinguishes this subject from others.
    """
    spec = describe(model)
    visual = visual_tokens(spec, inputs["input_ids"])
    text = inputs["input_ids"].shape[1] - visual
    settings: dict[str, Any] = {
        "model": name,
        "layers": spec.decoder_shape.layers,
        "hidden": spec.decoder_shape.hidden,
        "batch": len(inputs["input_ids"]),
        "visual_tokens": visual,
        "text_tokens": text,
        "new_tokens": new_tokens,
        **details,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn": spec.decoder.config._attn_implementation,  # type: ignore[union-attr]
        "device": str(model.device),
    }
    return Subject(model, dict(inputs), visual, text, step_bytes(model), settings)


def _check(wanted: Wanted) -> None:
    for name in ("layers", "hidden", "distinct_layers", "batch", "visual_tokens", "text_tokens", "new_tokens"):
        value = getattr(wanted, name)
        if value is not None and value < 1:
            raise BenchmarkError(f"{name.replace('_', ' ')} must be at least 1, not {value}")
    if wanted.model not in SHAPES and "/" not in wanted.model and not is_local(wanted.model):
        raise BenchmarkError(
            f"no model called {wanted.model!r}: use {', '.join(SHAPES)}, reference, a local directory or a Hugging "
            "Face id such as llava-hf/llava-1.5-7b-hf"
        )
