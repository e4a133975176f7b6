"""The methods of a server: which of them requests may choose, and how."""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from torch import Tensor

from vistrim._utils.labels import UNTOUCHED
from vistrim.engine import ModelSpec
from vistrim.errors import VistrimError
from vistrim.methods import ST3, Method, list_methods
from vistrim.methods.base.notation import parse_method
from vistrim.methods.base.parameter_text import HasNotation, options, parameter_hints
from vistrim.methods.st3 import default_for
from vistrim.prompt_budgets import PromptBudgets
from vistrim.serving.errors import RequestError
from vistrim.trimming import trim

CUSTOM = "custom"
"""Label of all methods that are not on the server's list."""


@dataclass(frozen=True)
class Choice:
    """The method of a request.

    Attributes
    ----------
    label : str
        Its label on the server's list, or `CUSTOM`.
    method : Method or None
        The method. None: the untouched model.
    """

    label: str
    method: Method | None


class Methods:
    """The methods that requests may choose.

    Parameters
    ----------
    name : str
        Name of the model in model ids.
    served : mapping of str to Method or None
        The server's list by label, the default first. None: the untouched model, which is always on the list. Empty:
        ST³, with the schedule beside the model if there is one.
    allowed : collection of str
        Names of methods whose parameters requests may set.
    model : PreTrainedModel
        The model.
    spec : ModelSpec
        Its description.
    budget : str or None
        Budget of all methods on the list, for requests that name none.

    Raises
    ------
    ValueError
        If a method does not fit the model or cannot be set to the budget, or there is no method of a name.
    UnsupportedModelError
        If a method does not support the model.
    """

    def __init__(
        self,
        name: str,
        served: Mapping[str, Method | None],
        allowed: Collection[str],
        model: Any,
        spec: ModelSpec,
        budget: str | None = None,
    ) -> None:
        self.name, self.budget, self._model = name, budget, model
        self.served = {**(served or {ST3.name: default_for(spec.facts)}), UNTOUCHED: served.get(UNTOUCHED)}
        self.default = next(iter(self.served))
        unknown = set(allowed) - {method.name for method in list_methods()}
        if unknown:
            raise ValueError(f"there is no method {min(unknown)}: see `vistrim methods`")
        self.allowed = frozenset(allowed)
        self._budgets = PromptBudgets(model)
        for method in self.served.values():
            if method is not None:
                trim(model, method)
                if budget is not None:
                    self._budgets.check(method, budget)
        # Budgets and parameters are checked by the threads that make prompts.
        self._lock = threading.Lock()
        self._fit = lru_cache(maxsize=256)(self._checked)

    def models(self) -> dict[str, Choice]:
        """Return the model ids: the name of the model is that of the default method."""
        choices = {label: Choice(label, method) for label, method in self.served.items()}
        return {self.name: choices[self.default]} | {
            f"{self.name}:{label}": choice for label, choice in choices.items()
        }

    def choose(self, model_id: str, notation: str | None, budget: str | None, inputs: Mapping[str, Tensor]) -> Choice:
        """Find the method of a request.

        Parameters
        ----------
        model_id : str
            The model that the request names.
        notation : str or None
            A label of the server's list, a method on it, or an allowed method with parameters. None: that of the model
            id.
        budget : str or None
            A budget to which the method is set. None: that of the server, for methods on its list.
        inputs : mapping
            The prompt, to whose images a budget refers.

        Returns
        -------
        Choice

        Raises
        ------
        RequestError
            If the choice is not allowed or does not fit the model.
        """
        choice = self.models().get(model_id)
        if choice is None:
            raise RequestError(
                f"there is no model {model_id[:100]!r}: see /v1/models",
                status=404,
                code="model_not_found",
                param="model",
            )
        if notation is not None:
            choice = self._find(notation)
        if budget is not None and choice.method is None:
            raise _wrong("a budget needs a method: leave out budget, or choose a method")
        # Parameters that a request has set stay.
        budget = budget or (self.budget if choice.label != CUSTOM else None)
        if budget is None or choice.method is None:
            return choice
        try:
            with self._lock:
                (method,) = self._budgets.methods(choice.method, budget, inputs)
        except (ValueError, VistrimError) as error:
            raise _wrong(str(error)) from None
        return replace(choice, method=method)

    def _find(self, notation: str) -> Choice:
        if notation in self.served:
            return Choice(notation, self.served[notation])
        try:
            method = parse_method(notation)
        except (ValueError, VistrimError) as error:
            raise _wrong(str(error)) from None
        for label, served in self.served.items():
            if served == method:
                return Choice(label, served)
        if refusal := self._refusal(method):
            raise RequestError(refusal, status=403, code="method_not_allowed", param="vistrim")
        with self._lock:
            return Choice(CUSTOM, self._fit(method))

    def _refusal(self, method: Method) -> str | None:
        """Return why a request may not use a method with these parameters. None: it may."""
        for part in getattr(method, "methods", (method,)):
            if part.name not in self.allowed:
                return f"the method {part.name} is not on the list of this server: see /v1/vistrim/methods"
            for name, hint in parameter_hints(part.__class__).items():
                value = getattr(part, name)
                if isinstance(value, Method):
                    if refusal := self._refusal(value):
                        return refusal
                elif not _is_plain(value, hint):
                    return f"requests may not set {name} of {part.name}, because it names a file or a model"
        return None

    def _checked(self, method: Method) -> Method:
        try:
            trim(self._model, method)
        except (ValueError, VistrimError) as error:
            raise _wrong(str(error)) from None
        return method


def _is_plain(value: Any, hint: Any) -> bool:
    """Whether a parameter is a number, a flag or one of several words: not a name of a file or a model."""
    if isinstance(value, tuple):
        return all(_is_plain(element, hint) for element in value)
    if isinstance(value, str):
        return any(get_origin(option) is Literal and value in get_args(option) for option in options(hint))
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, HasNotation))


def _wrong(message: str) -> RequestError:
    return RequestError(" ".join(message.split())[:500], code="invalid_method", param="vistrim")
