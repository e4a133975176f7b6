"""Rows of the comparison: ways to anneal, each set to the same budget of the KV cache."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vistrim
from vistrim.errors import VistrimError

BASES = {
    "vta": {"horizon": 64, "floor": 0.1},
    "st3": {"horizon": 64, "floor": 0.1},
}
"""Annealing that forgets: alone, where the floor is set to the budget, and after ST³'s cuts, where their share is."""
BUDGETS = {"vta": 0.7, "st3": 0.3}
"""Mean KV fraction of each. On `reference`, `vta` without a floor reaches 0.63 at this horizon."""
LITERAL = "current token"
"""The literal reading of the paper, with which all others are compared."""
FALLING = "floors fall with depth"
FIRST_HALF = "floors in the first half"
VARIANTS: dict[str, dict[str, Any]] = {
    LITERAL: {},
    "answer so far": {"decode_rows": "answer"},
    "question": {"decode_rows": "prompt"},
    "current token, half spaced": {"spread": 0.5},
    "answer so far, half spaced": {"decode_rows": "answer", "spread": 0.5},
    "question, half spaced": {"decode_rows": "prompt", "spread": 0.5},
    "evenly spaced": {"spread": 1.0},
    FALLING: {},
    FIRST_HALF: {},
}
"""By label: parameters that differ from the base. The floors depend on the number of layers: see `settings_of`."""
WITHOUT_ANNEALING = {"st3": ("pvtp", "uniform")}
"""Methods at the same budget that do not anneal."""


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Attributes
    ----------
    base : str
        Table that it belongs to: a key of `BASES`.
    label : str
        The variant.
    kv : float
        Budget: mean KV fraction over a description.
    method : str or None
        The method that runs, in full. None if it cannot reach the budget.
    reached : float or None
        Planned KV fraction.
    reason : str or None
        Why it cannot run.
    """

    base: str
    label: str
    kv: float
    method: str | None = None
    reached: float | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str, float]:
        """What a row is found by."""
        return self.base, self.label, self.kv

    @property
    def name(self) -> str:
        """Unique label."""
        return f"{self.base} at {self.kv:g}, {self.label}"


def settings_of(base: str, label: str, depth: int) -> dict[str, Any]:
    """Parameters of a variant.

    Parameters
    ----------
    base, label : str
        Keys of `BASES` and `VARIANTS`.
    depth : int
        Number of decoder layers. Floors per layer have the mean of the base's floor.
    """
    settings = {**BASES[base], **VARIANTS[label]}
    floor = BASES[base]["floor"]
    if label == FALLING:
        settings["floor"] = tuple(round(2 * floor * (1 - layer / (depth - 1)), 4) for layer in range(depth))
    if label == FIRST_HALF:
        settings["floor"] = tuple(2 * floor if layer < depth / 2 else 0.0 for layer in range(depth))
    return settings


def wanted(labels: Sequence[str], budgets: Mapping[str, float]) -> Iterator[Row]:
    """List the rows, the literal reading first.

    Parameters
    ----------
    labels : sequence of str
        Variants. Empty: all, and the methods without annealing.
    budgets : mapping of str to float
        Mean KV fraction of each base.

    Raises
    ------
    ValueError
        If there is no such variant. The message lists them.
    """
    if unknown := set(labels) - set(VARIANTS):
        raise ValueError(f"no variant {', '.join(sorted(unknown))}: choose from {'; '.join(VARIANTS)}")
    for base, kv in budgets.items():
        chosen = dict.fromkeys((LITERAL, *(labels or (*VARIANTS, *WITHOUT_ANNEALING.get(base, ())))))
        yield from (Row(base, label, kv) for label in chosen)


def resolved(row: Row, model: Any, depth: int, inputs: Any, new_tokens: int) -> Row:
    """Set the method of a row to its budget.

    Parameters
    ----------
    row : Row
        The row.
    model : PreTrainedModel
        The model.
    depth : int
        Number of its decoder layers.
    inputs : BatchFeature
        Typical descriptions, for `vistrim.at_budget`.
    new_tokens : int
        Length of their answers.
    """
    if row.label in VARIANTS:
        method = vistrim.get_method(row.base, **settings_of(row.base, row.label, depth))
    else:
        method = vistrim.get_method(row.label)
    try:
        found = vistrim.at_budget(method, model, kv=row.kv, inputs=inputs, new_tokens=new_tokens)
    except (VistrimError, ValueError) as error:
        return Row(*row.key, reason=" ".join(str(error).split()))
    return Row(*row.key, str(found.method), found.reached)
