"""Errors about wrong return values of hooks."""

from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import torch

from vistrim.errors import MethodError
from vistrim.methods.base.method import Method

SHOWN = 16
"""Largest number of elements of a wrong tensor that an error message prints."""
LONGEST = 300
"""Largest number of characters of any other wrong return value that an error message prints."""


def refuse_answer(method: Method, hook: str, answer: Any, problem: str) -> NoReturn:
    """Raise an error about a wrong return value of a hook.

    Parameters
    ----------
    method : Method
        The method.
    hook : str
        Name of the hook.
    answer : object
        The returned value.
    problem : str
        Description of the problem.

    Raises
    ------
    MethodError
        Always. The message names the method and shows the returned value.
    """
    raise MethodError(f"{method.name}: {hook} returned {' '.join(_shown(answer).split())}: {problem}")


def _shown(answer: Any) -> str:
    if isinstance(answer, torch.Tensor):
        text = f"a tensor {list(answer.shape)} of {answer.dtype}"
        return f"{text} ({answer.tolist()})" if answer.numel() <= SHOWN else text
    if is_dataclass(answer) and not isinstance(answer, type):
        given = {field.name: getattr(answer, field.name) for field in fields(answer)}
        parts = [f"{name}={_shown(value)}" for name, value in given.items() if value is not None]
        return f"{type(answer).__name__}({', '.join(parts)})"
    text = repr(answer)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
