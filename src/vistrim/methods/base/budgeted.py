"""A method that was set to a budget."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from vistrim.methods.base.method import Method

Kind = Literal["tokens", "flops", "kv"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Budgeted:
    """Result of `vistrim.at_budget`. `vistrim.trim` and all other functions take it in the place of a method.

    Attributes
    ----------
    method : Method
        The method with its parameter set.
    kind : {"tokens", "flops", "kv"}
        Kind of budget.
    asked, reached : float
        The budget, and the largest value at or below it that the method can reach, in the same unit.
    parameter : str
        Parameter that was set.
    value : object
        Its value.
    """

    method: Method
    kind: Kind
    asked: float
    reached: float
    parameter: str
    value: Any

    def __str__(self) -> str:
        """Return the notation of the method."""
        return str(self.method)


def read_budget(text: str) -> dict[str, float]:
    """Read a budget as it stands on the command line and in files.

    Parameters
    ----------
    text : str
        For example ``"tokens=0.33"`` (a share), ``"tokens=192"`` (a number), ``"flops=0.4"`` or ``"kv=0.5"``.

    Returns
    -------
    dict
        The keyword argument of `vistrim.at_budget`.

    Raises
    ------
    ValueError
        If it is no budget.
    """
    kind, _, value = (piece.strip() for piece in text.partition("="))
    try:
        number = int(value) if kind == "tokens" and value.isdigit() else float(value)
    except ValueError:
        number = None
    if kind not in KINDS or number is None:
        raise ValueError(f"{text!r} is no budget: write tokens=0.33, tokens=192, flops=0.4 or kv=0.5")
    return {kind: number}
