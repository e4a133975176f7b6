"""Cuts at exactly a budget, planned for the calibration prompts without running the model."""

from collections.abc import Mapping
from dataclasses import dataclass

from vistrim.budgeting import figure
from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.cuts import Cuts
from vistrim.methods.base.plan import make_plan
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.methods.fitted_st3 import FittedST3
from vistrim.methods.vta import VTA

HALVINGS = 24
LARGEST_POWER = 1024.0


@dataclass(frozen=True)
class Budget:
    """A budget of the calibration prompts.

    Attributes
    ----------
    kind : {"tokens", "flops", "kv"}
        Kind of budget.
    wanted : float
        Its value.
    facts : ModelFacts
        The model.
    sizes : mapping of (SampleSizes, int) to int
        Number of prompts with these sizes and this number of tokens in the untouched model's answer.
    """

    kind: str
    wanted: float
    facts: ModelFacts
    sizes: Mapping[tuple[SampleSizes, int], int]

    def method(self, cuts: Cuts, annealing: VTA) -> FittedST3:
        """The method that makes these cuts on the model."""
        return FittedST3(cuts, annealing, self.facts.decoder.layers)

    def reached(self, method: FittedST3, kind: str | None = None) -> float:
        """Figure of a method over all prompts, of the budget's kind by default."""
        kind = kind or self.kind
        plans = []
        for (sample, answer), count in self.sizes.items():
            # Only the cache depends on the answer.
            plans += [make_plan(method, self.facts, sample, answer if kind == "kv" else 1)] * count
        return figure(kind, self.wanted, plans)

    def fit(self, cuts: Cuts, annealing: VTA) -> Cuts | None:
        """Scale shares to the largest ones that do not exceed the budget.

        Shares of 0 stay 0. None: the budget is out of reach, or cannot be used up.
        """

        def fits(power: float) -> bool:
            return self.reached(self.method(cuts.scaled(power), annealing)) <= self.wanted

        if 0 in cuts.shares and fits(0.0):
            return None
        low, high = 0.0, 1.0
        while not fits(high):
            low, high = high, 2 * high
            if high > LARGEST_POWER:
                return None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return cuts.scaled(high)
