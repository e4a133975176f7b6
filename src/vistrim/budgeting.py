"""One budget for all methods: `at_budget` sets the parameter of a method so that a figure reaches a given value."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from vistrim.core.model_facts import ModelFacts
from vistrim.engine import describe
from vistrim.engine.wrappers import without_adapter
from vistrim.errors import MethodError, ParameterError
from vistrim.methods.base.budgeted import Budgeted, check_budget, read_budget
from vistrim.methods.base.composition import Composed
from vistrim.methods.base.method import Method
from vistrim.methods.base.notation import as_method, from_plain_data
from vistrim.methods.base.plan import Plan, make_plan
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.prompt_sizes import prompt_sizes

SMALLEST = 1e-6
"""Smallest share that is tried."""
HALVINGS = 60
DECIMALS = 12
"""Decimals of a parameter that was set. Those after them are rounding errors: 1 - 0.19 would be 0.8099999999999999."""


def at_budget(
    method: Method | str,
    model: Any,
    *,
    tokens: float | None = None,
    flops: float | None = None,
    kv: float | None = None,
    inputs: Mapping[str, Any] | None = None,
    new_tokens: int = 64,
) -> Budgeted:
    """Set the parameter of a method to the largest value at which a figure does not exceed a budget.

    The figures are computed from the counts of the method, without running the model. They are those of the report of
    a generation with these sizes.

    Parameters
    ----------
    method : Method or str
        The method, or its notation. Of a composition, the first part is set.
    model : PreTrainedModel or PeftModel
        The model.
    tokens : float or int, optional
        Visual tokens per layer in prefill, averaged over the layers: a share (float) of the visual tokens of the
        prompt, or a number (int).
    flops : float, optional
        FLOPs of the decoder in prefill and of the method's own networks, as a share of the untouched decoder's.
    kv : float, optional
        KV fraction, averaged over an answer of ``new_tokens``.
    inputs : mapping, optional
        A prompt as the processor returns it. None: 64 text tokens and one image of the model's native size.
    new_tokens : int
        Tokens of the answer.

    Returns
    -------
    Budgeted
        The method, and the value that it reaches. `vistrim.trim` takes it as a method.

    Raises
    ------
    MethodError
        If the method cannot be set to a budget; with the reason.
    ParameterError
        If the budget is out of reach (with the range), not exactly one budget is given, or there is no default prompt.
    ValueError
        If a parameter of the method does not fit the model.

    Examples
    --------
    >>> found = vistrim.at_budget("pyramiddrop", model, tokens=0.33)
    >>> found.reached
    >>> with vistrim.trim(model, found) as run:
    ...     output = model.generate(**inputs, max_new_tokens=64)
    """
    given = {"tokens": tokens, "flops": flops, "kv": kv}
    asked = [(kind, value) for kind, value in given.items() if value is not None]
    if len(asked) != 1:
        raise ParameterError("give exactly one of tokens, flops and kv")
    kind, wanted = asked[0]
    check_budget(kind, wanted)
    chosen, spec = as_method(method), describe(without_adapter(model))
    check_method(chosen, kind)
    samples = prompt_sizes(spec, inputs, counted_tokens(kind, new_tokens))
    return solve(chosen, kind, wanted, spec.facts, samples, new_tokens)


def solve(
    chosen: Method, kind: str, wanted: float, facts: ModelFacts, samples: Sequence[SampleSizes], new_tokens: int
) -> Budgeted:
    """Set a method to a budget for prompts of known sizes.

    Parameters
    ----------
    chosen : Method
        The method, after `check_method`.
    kind : {"tokens", "flops", "kv"}
        Kind of budget, see `at_budget`.
    wanted : float or int
        The budget.
    facts : ModelFacts
        Sizes of the model.
    samples : sequence of SampleSizes
        Sizes of the prompts.
    new_tokens : int
        Tokens of the answer.

    Returns
    -------
    Budgeted

    Raises
    ------
    ParameterError
        If the budget is out of reach.
    """
    # Decoding counts for the KV cache only.
    steps = new_tokens if kind == "kv" else 1

    def value_of(candidate: Method) -> float:
        fitted = candidate.fitted(facts)
        return figure(kind, wanted, [make_plan(fitted, facts, sample, steps) for sample in samples])

    def at_share(share: float) -> Method:
        return chosen.with_share(share, facts)

    share, reached = _largest(lambda share: value_of(at_share(share)), kind, wanted, chosen.name)
    found = _shortest(share, at_share, chosen, lambda candidate: value_of(candidate) == reached)
    part = getattr(found, "methods", (found,))[0]
    value = getattr(part, part.budget_parameter)
    return Budgeted(found, kind, wanted, reached, part.budget_parameter, value)  # type: ignore[arg-type]


def set_to_budget(
    methods: Mapping[str, Method],
    model: Any,
    budget: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    new_tokens: int = 64,
) -> dict[str, Budgeted]:
    """Set several methods to one budget, for ``--budget``.

    Parameters
    ----------
    methods : mapping of str to Method
        Methods by label.
    model : PreTrainedModel or PeftModel
        The model.
    budget : str
        For example ``"tokens=0.33"``, see `read_budget`.
    inputs, new_tokens
        See `at_budget`.

    Returns
    -------
    dict of str to Budgeted
        The methods and what they reach, with the budget in their labels: ``"fastv at tokens=0.33"``.

    Raises
    ------
    ParameterError
        If the text is no budget, or a method cannot be set to it.
    """
    try:
        asked: dict[str, Any] = {**read_budget(budget)}
        return {
            f"{label} at {budget}": at_budget(method, model, inputs=inputs, new_tokens=new_tokens, **asked)
            for label, method in methods.items()
        }
    except (ValueError, MethodError) as error:
        raise ParameterError(f"budget {budget}: {error}") from error


def method_from_dict(values: Mapping[str, Any], model: Any = None, inputs: Mapping[str, Any] | None = None) -> Method:
    """Build a method from plain data, the form in files and requests.

    Parameters
    ----------
    values : mapping
        ``{"method": notation}``, as `Method.to_dict` returns it, or with a budget
        ``{"method": notation, "budget": "tokens=0.33"}``. Other keys are refused.
    model : PreTrainedModel or PeftModel, optional
        The model whose sizes a budget refers to. Needed with a budget only.
    inputs : mapping, optional
        A prompt for the budget, see `at_budget`.

    Returns
    -------
    Method
        The method, set to the budget if there is one.

    Raises
    ------
    MethodError
        If the method cannot be set to a budget.
    ValueError
        If a key is missing or unknown, the notation or budget is wrong or out of reach, or a budget has no model.

    Examples
    --------
    >>> vistrim.method_from_dict({"method": "fastv", "budget": "flops=0.5"}, model)
    """
    plain = dict(values) if isinstance(values, Mapping) else values
    budget = plain.pop("budget", None) if isinstance(plain, dict) else None
    method = from_plain_data(plain)
    if budget is None:
        return method
    if not isinstance(budget, str):
        raise ValueError(f'the key "budget" must be text such as "tokens=0.33", not {budget!r}')
    if model is None:
        raise ValueError(f"the budget {budget} refers to the sizes of a model: pass the model, too")
    return at_budget(method, model, inputs=inputs, **read_budget(budget)).method  # type: ignore[arg-type]


def counted_tokens(kind: str, new_tokens: int) -> int | None:
    """Tokens of an answer that a budget counts. None: not even those of a sliding window matter.

    Windows limit the keys of a token, not the tokens that a layer processes.
    """
    return {"tokens": None, "flops": 1, "kv": new_tokens}[kind]


def check_method(method: Method, kind: str) -> None:
    """Refuse a method that cannot be set to a kind of budget.

    Raises
    ------
    MethodError
        If so; with the reason.
    """
    if not method.budget_parameter:
        raise MethodError(f"{method.name} cannot be set to a budget: {method.unbudgeted}")
    guidance = method.ranks_by == "guide"
    parts = getattr(method, "methods", (method,))
    if guidance and kind == "flops":
        raise MethodError(f"{method.name}: the FLOPs of the guide model depend on its answer: give tokens or kv")
    if any(getattr(part, "exit_threshold", None) is not None for part in parts):
        raise MethodError(f"{method.name}: early exits depend on the prompt: set exit_threshold=none")


def figure(kind: str, wanted: float, plans: Sequence[Plan]) -> float:
    """Compute the figure of a budget over several prompts.

    Parameters
    ----------
    kind : {"tokens", "flops", "kv"}
        Kind of budget, see `at_budget`.
    wanted : float or int
        The budget. For tokens, an int makes the figure a number instead of a share.
    plans : sequence of Plan
        Plans of the prompts.

    Returns
    -------
    float
        The figure, in the unit of the budget.
    """
    if kind == "tokens":
        average = sum(plan.average_tokens for plan in plans)
        if isinstance(wanted, int):
            return average / len(plans)
        return average / sum(plan.visual for plan in plans)
    if kind == "flops":
        spent = sum(plan.prefill_flops + plan.method_flops for plan in plans)
        return spent / sum(plan.prefill_flops_full for plan in plans)
    return sum(plan.kv_fraction_mean for plan in plans) / len(plans)


def _largest(value_at: Callable[[float], float], kind: str, wanted: float, name: str) -> tuple[float, float]:
    """Find the largest share at which the figure does not exceed the budget, and the figure, by bisection."""
    least, most = value_at(SMALLEST), value_at(1.0)
    if most <= wanted:
        if most < wanted * (1 - 1e-9):
            raise ParameterError(_range(name, kind, wanted, least, most))
        return 1.0, most
    if least > wanted:
        raise ParameterError(_range(name, kind, wanted, least, most))
    low, high, reached = SMALLEST, 1.0, least
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        value = value_at(middle)
        if value <= wanted:
            low, reached = middle, value
        else:
            high = middle
    return low, reached


def _shortest(
    share: float, at_share: Callable[[float], Method], before: Method, reaches: Callable[[Method], bool]
) -> Method:
    """Set a method to the share with the fewest digits that reaches the same figure."""
    for digits in range(2, 8):
        short = math.floor(share * 10**digits) / 10**digits
        if short >= SMALLEST and reaches(found := _without_noise(at_share(short), before)):
            return found
    exact = at_share(share)
    found = _without_noise(exact, before)
    return found if reaches(found) else exact


def _without_noise(found: Method, before: Method) -> Method:
    """Round the parameters that were set."""
    if isinstance(found, Composed) and isinstance(before, Composed):
        return Composed((_without_noise(found.methods[0], before.methods[0]), *found.methods[1:]))
    values = {field.name: getattr(found, field.name) for field in fields(found) if field.init}
    # Those that were not set stay as the user gave them.
    new = {name: value for name, value in values.items() if value is not getattr(before, name, None)}
    return replace(found, **{name: _rounded(value) for name, value in new.items()})


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_rounded, value))
    return round(value, DECIMALS) if isinstance(value, float) else value


def _range(name: str, kind: str, wanted: float, least: float, most: float) -> str:
    return (
        f"{name} cannot reach {kind}={wanted:g}: it reaches from {least:.4g} to {most:.4g} with this model and prompt"
    )
