"""Errors about wrong return values of hooks."""

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
    if isinstance(answer, torch.Tensor):
        text = f"a tensor {list(answer.shape)} of {answer.dtype}"
        text += f" ({answer.tolist()})" if answer.numel() <= SHOWN else ""
    else:
        text = repr(answer)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    raise MethodError(f"{method.name}: {hook} returned {' '.join(text.split())}: {problem}")
