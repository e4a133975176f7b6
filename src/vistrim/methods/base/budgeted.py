"""A method that was set to a budget."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from vistrim.errors import ParameterError
from vistrim.methods.base.method import Method

Kind = Literal["tokens", "flops", "kv"]
KINDS: tuple[str, ...] = get_args(Kind)
"""Kinds of budgets."""


@dataclass(frozen=True)
class Budgeted:
    """Result of `vistrim.at_budget`. `vistrim.trim` and all other functions accept it in place of a method.

    Attributes
    ----------
    method : Method
        The method that meets the budget.
    kind : {"tokens", "flops", "kv"}
        Kind of budget.
    asked, reached : float
        The budget, and the largest value at or below it that the method can reach, in the same unit.
    parameter : str
        Name of the parameter that was set.
    value : object
        Value of that parameter.
    """

    method: Method
    kind: Kind
    asked: float
    reached: float
    parameter: str
    value: Any

    def __str__(self) -> str:
        """Return the notation of the method.

        Returns
        -------
        str
            For example ``"fastv:keep=0.25"``.
        """
        return str(self.method)

    @property
    def summary(self) -> str:
        """What was set and what it reaches, for reports.

        Returns
        -------
        str
            For example ``"fastv:layer=2,keep=0.25 reaches tokens=0.3281"``.
        """
        return f"{self.method} reaches {self.kind}={self.reached:.4g}"

    def figures(self) -> dict[str, Any]:
        """Return everything but the method, as plain Python objects.

        Returns
        -------
        dict
        """
        return {name: value for name, value in vars(self).items() if name != "method"}


def read_budget(text: str) -> dict[str, float]:
    """Read a budget in the form used on the command line and in files.

    Parameters
    ----------
    text : str
        For example ``"tokens=0.33"`` (a share), ``"tokens=192"`` (a number), ``"flops=0.4"`` or ``"kv=0.5"``.

    Returns
    -------
    dict of str to float
        The keyword argument of `vistrim.at_budget`. A whole number of tokens is an int.

    Raises
    ------
    ValueError
        If the text is not a budget, or the value is out of range.
    """
    kind, _, value = (piece.strip() for piece in text.partition("="))
    try:
        number = int(value) if kind == "tokens" and value.isdigit() else float(value)
    except ValueError:
        number = None
    if kind not in KINDS or number is None:
        raise ValueError(f"{text!r} is no budget: write tokens=0.33, tokens=192, flops=0.4 or kv=0.5")
    check_budget(kind, number)
    return {kind: number}


def check_budget(kind: str, value: float) -> None:
    """Check the value of a budget.

    Parameters
    ----------
    kind : {"tokens", "flops", "kv"}
        Kind of budget.
    value : float or int
        A share, or a number of tokens (int).

    Raises
    ------
    ParameterError
        If a share is not above 0 and at most 1, or a number not above 0.
    """
    is_number = kind == "tokens" and isinstance(value, int)
    if not value > 0 or (value > 1 and not is_number):
        raise ParameterError(f"{kind}={value}: a share must be above 0 and at most 1.0, a number of tokens at least 1")
