"""A budget for prompts with images of different sizes: the method is set for each prompt."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from vistrim.budgeting import check_method, counted_tokens, solve
from vistrim.engine import describe
from vistrim.engine.wrappers import without_adapter
from vistrim.errors import MethodError, ParameterError
from vistrim.methods.base.budgeted import read_budget
from vistrim.methods.base.method import Method
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.prompt_sizes import TEXT_TOKENS, check_windows, prompt_sizes, sizes_of

NEW_TOKENS = 64
"""Tokens of the answer that a budget refers to."""
REMEMBERED = 256
"""Number of solutions that are kept."""


class PromptBudgets:
    """Sets methods to budgets, for each prompt anew.

    A budget refers to the images of the prompt, with the text and the answer of the default prompt of
    `vistrim.at_budget`: 64 tokens each. Prompts whose images have the same sizes therefore get the same method, which
    is computed once, and can share a batch.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        The model.
    """

    def __init__(self, model: Any) -> None:
        self._spec = describe(without_adapter(model))
        self._solved = lru_cache(REMEMBERED)(self._solve)

    def check(self, method: Method, budget: str) -> None:
        """Refuse what can be refused before there is a prompt.

        Parameters
        ----------
        method : Method
            The method.
        budget : str
            For example ``"tokens=0.33"``.

        Raises
        ------
        ParameterError
            If the text is no budget, the method cannot be set to it, or all images of the model have one size and it is
            out of reach.
        """
        try:
            ((kind, _),) = read_budget(budget).items()
            check_method(method, kind)
            if self._spec.images.tokens is not None:
                (sample,) = prompt_sizes(self._spec, None, counted_tokens(kind, NEW_TOKENS))
                self._solved(method, budget, sample)
        except (ValueError, MethodError) as error:
            raise ParameterError(f"budget {budget}: {error}") from error

    def methods(self, method: Method, budget: str, inputs: Mapping[str, Any]) -> list[Method]:
        """Set a method to a budget for each sample of a batch.

        Parameters
        ----------
        method : Method
            The method.
        budget : str
            For example ``"tokens=0.33"``.
        inputs : mapping
            The batch, as the processor returns it.

        Returns
        -------
        list of Method
            One per sample. Without an image there is nothing to trim: such a sample has the method as it was given.

        Raises
        ------
        MethodError
            If the method cannot be set to a budget.
        ValueError
            If the text is no budget, or it is out of reach or depends on a sliding window.
        """
        ((kind, _),) = read_budget(budget).items()
        counted = counted_tokens(kind, NEW_TOKENS)
        samples = sizes_of(self._spec, inputs)
        for sample in samples:
            if sample.visual and counted is not None:
                check_windows(self._spec, sample.text + sample.visual + counted)
        return [
            self._solved(method, budget, replace(sample, text=TEXT_TOKENS)) if sample.visual else method
            for sample in samples
        ]

    def _solve(self, method: Method, budget: str, sample: SampleSizes) -> Method:
        ((kind, wanted),) = read_budget(budget).items()
        check_method(method, kind)
        return solve(method, kind, wanted, self._spec.facts, [sample], NEW_TOKENS).method
