"""Rows of the common table: every registered method at every budget, or the reason why it cannot be set to one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import vistrim
from vistrim import Method
from vistrim.errors import VistrimError
from vistrim.methods.base.notation import as_method

BASELINES = ("random", "uniform", "pool", "downsample", "blind")
"""Methods that are always in the table."""

SETTINGS = {
    "reference": {
        "gsearch": "gsearch:schedule=studies/accuracy/results/schedules-reference/gsearch.json",
        "psigmoid": "psigmoid:mean_keep=0.33,kappa=0.2",
        "sgl": "sgl:guide=reference-small",
        "sparsevlm": "sparsevlm:layers=1/2/6,counts=101/68/37",
        "vtc-cls": "vtc-cls:first_layer=1",
        "yopo": "yopo:window=5,ffn=0.5,layer=7",
    },
}
"""By model: notation of methods whose default does not fit it, or that need a file or another model."""
VARIANTS = {
    "reference": {
        "dart:layer=1": "dart:layer=1",
        "fastv:layer=1": "fastv:layer=1",
        "pyramiddrop:layers=1/4/8,positions=original": "pyramiddrop:layers=1/4/8,positions=original",
        "sparsevlm:positions=original": "sparsevlm:layers=1/2/6,counts=101/68/37,positions=original",
        "st3:schedule=auto": "st3:schedule=auto",
    },
}
"""By model: notation of further rows. Methods that renumber by default also have one with original positions."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    label : str
        Name of the method, or the notation of a variant.
    asked : float or None
        Budget: visual tokens per layer, as a share. None: the method has no budget and runs as ``notation`` says.
    notation : str
        The method before it is set to the budget.
    reached : float or None
        Share that it reaches, by its counts.
    method : str or None
        The method that runs, in full; None if it cannot run.
    reason : str or None
        Why it cannot run, or cannot be set to a budget.
    questions : int
        Questions per task that are answered.
    environments : sequence of int
        Numbers of the environments of the runs that answered them.
    """

    label: str
    asked: float | None
    notation: str
    reached: float | None = None
    method: str | None = None
    reason: str | None = None
    questions: int = 0
    environments: Sequence[int] = ()

    @property
    def key(self) -> tuple[str, float | None]:
        """What a row is found by."""
        return self.label, self.asked

    @property
    def name(self) -> str:
        """Unique label."""
        return self.label if self.asked is None else f"{self.label} at {self.asked:g}"


def wanted(model: str, methods: Sequence[str], budgets: Sequence[float]) -> list[Row]:
    """List the rows of a model, the defaults of the methods before the variants.

    Parameters
    ----------
    model : str
        Name of the model.
    methods : sequence of str
        Names or notations; the baselines are added. Empty: all registered methods and the variants of the model.
    budgets : sequence of float
        Visual tokens per layer, as shares.
    """
    own = SETTINGS.get(model, {})
    names = methods or [info.name for info in vistrim.list_methods()]
    labels = dict.fromkeys((*BASELINES, *names))
    defaults = {label: own.get(label, label) for label in labels}
    variants = {} if methods else dict(_variants(model, defaults))
    return [
        Row(label, budget, notation)
        for labelled in (defaults, variants)
        for budget in (None, *budgets)
        for label, notation in labelled.items()
        if (budget is None) == (not as_method(notation).budget_parameter)
    ]


def _variants(model: str, defaults: dict[str, str]) -> Iterator[tuple[str, str]]:
    for label, notation in defaults.items():
        if getattr(as_method(notation), "positions", None) == "renumber":
            yield f"{label}:positions=original", f"{notation}{',' if ':' in notation else ':'}positions=original"
    yield from VARIANTS.get(model, {}).items()


def resolved(row: Row, model: Any) -> tuple[Row, Method | None]:
    """Find the method of a row, or the reason why there is none.

    A row that has a method keeps it, even if `vistrim.at_budget` would now choose another value.
    """
    if row.method:
        try:
            return row, as_method(row.method)
        except ValueError:
            pass  # The fitted form of some methods is no notation.
    try:
        if row.asked is None:
            method = as_method(row.notation)
            return replace(row, method=str(method), reason=method.unbudgeted), method
        found = vistrim.at_budget(row.notation, model, tokens=row.asked)
    except (VistrimError, ValueError) as error:
        return replace(row, reason=" ".join(str(error).split())), None
    return replace(row, method=str(found.method), reached=found.reached, reason=None), found.method
