"""What a method reaches at a budget: planned, in a run, and by one step more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import torch

from vistrim import at_budget, trim
from vistrim.benchmark.subject import Subject
from vistrim.engine import describe
from vistrim.errors import VistrimError
from vistrim.methods import Method
from vistrim.methods.base.notation import as_method
from vistrim.methods.base.plan import Plan, make_plan
from vistrim.prompt_sizes import prompt_sizes
from vistrim.trimming import prepare_trim

SMALLEST, HALVINGS, SCANNED = 1e-6, 60, 100
ROUNDING = 1e-9


@dataclass(frozen=True)
class Row:
    """A method at a budget.

    Attributes
    ----------
    method : str
        Notation of the method.
    kind : str
        Kind of the budget.
    asked : float
        The budget.
    refused : str or None
        Why the method has no value. None: it has one.
    set_to : str or None
        Notation with the parameter at the budget.
    reached : float or None
        Planned value.
    measured : float or None
        Value in the report of a run.
    following : float or None
        The next larger value that the parameter reaches, by a search of its own.
    missing : float or None
        Tokens in every layer (and step, for ``kv``) between the budget and the value: the step to the next value times
        the share of it that is left unused.
    """

    method: str
    kind: str
    asked: float
    refused: str | None = None
    set_to: str | None = None
    reached: float | None = None
    measured: float | None = None
    following: float | None = None
    missing: float | None = None


@torch.no_grad()
def row(subject: Subject, notation: str, kind: str, asked: float, new_tokens: int) -> Row:
    """Set a method to a budget, and run it.

    Parameters
    ----------
    subject : Subject
        Model and prompt.
    notation : str
        The method.
    kind : {"tokens", "flops", "kv"}
        Kind of the budget.
    asked : float
        The budget, a share.
    new_tokens : int
        Tokens of the answer.

    Raises
    ------
    RuntimeError
        If plan, run and search do not agree.
    """
    arguments: dict[str, Any] = {kind: asked}
    try:
        method = as_method(notation)
        # What the model lacks is said first: no budget helps there.
        if method.budget_parameter:
            _check_model(subject, method)
        found = at_budget(method, subject.model, inputs=subject.inputs, new_tokens=new_tokens, **arguments)
    except (VistrimError, ValueError) as error:
        return Row(notation, kind, asked, refused=" ".join(str(error).split()))
    below, above = _neighbors(subject, method, kind, asked, new_tokens)
    with trim(subject.model, found.method) as run:
        subject.model.generate(**subject.inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens)
    report = run.report
    assert report.kv_fraction_mean is not None
    measured = {
        "tokens": report.average_tokens / mean(report.visual_tokens),
        "flops": (report.prefill_flops + sum(report.method_flops)) / report.prefill_flops_full,
        "kv": report.kv_fraction_mean,
    }[kind]
    reached = found.reached
    if not (_equal(reached, measured) and _equal(reached, below[0]) and reached <= asked * (1 + ROUNDING)):
        raise RuntimeError(f"{found} at {kind}={asked}: planned {reached}, measured {measured}, searched {below[0]}")
    missing = 0.0
    if above is not None:
        missing = (asked - reached) / (above[0] - reached) * (above[1] - below[1])
    return Row(
        notation, kind, asked, None, str(found), reached, measured, above[0] if above is not None else None, missing
    )


def _check_model(subject: Subject, method: Method) -> None:
    """Check that the model has what the method needs, whatever its size."""
    prepare_trim(subject.model, method.with_share(1.0, describe(subject.model).facts))


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= ROUNDING * abs(other)


Value = tuple[float, float]
"""Value of a budget, and the tokens in every layer that it counts."""


def _neighbors(
    subject: Subject, method: Method, kind: str, asked: float, new_tokens: int
) -> tuple[Value, Value | None]:
    """Find the last value at or below a budget, and the first one above it, by a search of its own.

    Raises
    ------
    RuntimeError
        If a larger share costs less.
    """
    value = _valued(subject, method, kind, new_tokens)
    scanned = [value(number / SCANNED)[0] for number in range(1, SCANNED + 1)]
    if any(before > after for before, after in pairwise(scanned)):
        raise RuntimeError(f"{method}: a larger share costs less")
    low, high = SMALLEST, 1.0
    if value(high)[0] <= asked:
        return value(high), None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle)[0] <= asked else (low, middle)
    return value(low), value(high)


def _valued(subject: Subject, method: Method, kind: str, new_tokens: int) -> Callable[[float], Value]:
    spec = describe(subject.model)
    (sizes,) = prompt_sizes(spec, subject.inputs, new_tokens)

    def value(share: float) -> Value:
        fitted = method.with_share(share, spec.facts).fitted(spec.facts)
        plan = make_plan(fitted, spec.facts, sizes, new_tokens if kind == "kv" else 1)
        return _figure(plan, kind), _tokens(plan, kind)

    return value


def _figure(plan: Plan, kind: str) -> float:
    if kind == "tokens":
        return plan.average_tokens / plan.visual
    if kind == "flops":
        return (plan.prefill_flops + plan.method_flops) / plan.prefill_flops_full
    return plan.kv_fraction_mean


def _tokens(plan: Plan, kind: str) -> float:
    return mean(map(mean, plan.kv_tokens_per_step)) if kind == "kv" else plan.average_tokens
