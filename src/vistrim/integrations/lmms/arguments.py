"""What ``--model_args`` and the other options of lmms-eval say about the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim.errors import InputError

EXAMPLE = """--model_args 'pretrained=reference,method="fastervlm:keep=0.5+st3"'"""
QUOTES = "'\""
FROM_OPTIONS = ("batch_size", "max_batch_size", "device")
"""Those that lmms-eval passes from its own options."""
COUNTS = ("batch_size", "max_new_tokens", "num_frames")
"""Whole numbers of at least 1."""


@dataclass(frozen=True)
class ModelArguments:
    """Arguments of the model.

    Attributes
    ----------
    pretrained : str
        Folder, Hugging Face id, or name of a reference model.
    method : str
        Notation of a method, or ``untouched``.
    budget : str or None
        Budget that the method is set to, such as ``tokens=0.33``.
    dtype, device : str
        As in `vistrim.load`.
    batch_size : int
        Questions per batch.
    max_new_tokens : int
        Longest answer in tasks that set no limit.
    num_frames : int or None
        Frames per video; None: as many as the processor takes.
    """

    pretrained: str
    method: str
    budget: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int = 1
    max_new_tokens: int = 1024
    num_frames: int | None = None


def read_arguments(values: Mapping[str, Any]) -> ModelArguments:
    """Check the values that lmms-eval has read.

    Parameters
    ----------
    values : mapping
        By name: numbers and bools are converted, text still has its quotes.

    Returns
    -------
    ModelArguments

    Raises
    ------
    InputError
        If a value is missing, unknown or of the wrong type.
    """
    given = {name: value for name, value in values.items() if name != "max_batch_size"}
    names = [field.name for field in fields(ModelArguments)]
    if unknown := [name for name in given if name not in names]:
        own = ", ".join(name for name in names if name not in FROM_OPTIONS)
        raise InputError(
            f"the model vistrim has no argument {', '.join(unknown)}: choose among {own}. A value with commas needs "
            f'quotes inside the argument, as in method="st3:stride=2,drop_per_cut=0.5"'
        )
    for name in ("pretrained", "method"):
        if given.get(name) in (None, ""):
            hint = f" (method={UNTOUCHED} for the model without trimming)" if name == "method" else ""
            raise InputError(f"{name}= is missing: write for example {EXAMPLE}{hint}")
    counts = {name: _count(name, given.pop(name)) for name in COUNTS if name in given}
    texts = {name: _text(value) for name, value in given.items()}
    if texts["method"] == UNTOUCHED and "budget" in texts:
        raise InputError(f"method={UNTOUCHED} has no budget: leave budget= out, or choose a method")
    return ModelArguments(**texts, **counts)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    text = str(value).strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES
    return text[1:-1] if is_quoted else text


def _count(name: str, value: Any) -> int:
    try:
        number = int(_text(value))
    except ValueError:
        number = 0
    if number < 1:
        raise InputError(f"{name}={value}: give a whole number of at least 1")
    return number
