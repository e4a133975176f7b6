"""The search of ``vistrim calibrate psigmoid``, with the interface that all searches share."""

from collections.abc import Callable
from dataclasses import dataclass

from vistrim.budgeting import set_to_budget
from vistrim.calibration.psigmoid import KappaSearch, search_kappa
from vistrim.calibration.rate_evaluations import Asking, Evaluations
from vistrim.cli.calibrate.search import Found, Search
from vistrim.core.sigmoid import sigmoid_rates
from vistrim.engine import describe
from vistrim.evaluation.typical_inputs import typical_inputs
from vistrim.methods.psigmoid import PSigmoid


@dataclass(frozen=True)
class SteepnessSearch(Search):
    """P-Sigmoid; the fields are the command's options."""

    method = "psigmoid"

    budget: str
    trials: int
    seed: int

    def total(self, asking: Asking) -> int:
        """Number of trials."""
        # Raises for a budget that this model cannot meet, whatever the steepness.
        self._share(asking)(1.0)
        return self.trials

    def run(self, evaluations: Evaluations, asking: Asking, advance: Callable[[str], None]) -> Found:
        """Search by Bayesian optimization."""
        share, layers = self._share(asking), describe(asking.model).decoder_shape.layers

        def rates(kappa: float) -> tuple[float, ...]:
            return sigmoid_rates(kappa, share(kappa), layers)

        def show(best: KappaSearch) -> None:
            advance(f"{100 * best.performance:.1f} % with kappa {best.kappa:.3g}")

        found = search_kappa(lambda kappa: evaluations(rates(kappa)), layers, self.trials, self.seed, show)
        notes = {"kappa": found.kappa, "mean_keep": share(found.kappa)}
        return Found(rates(found.kappa), found.performance, notes)

    def _share(self, asking: Asking) -> Callable[[float], float]:
        """Return the function from the steepness to the mean keep rate that meets the budget."""
        inputs = typical_inputs(asking.processor, asking.items)

        def share(kappa: float) -> float:
            wanted = {"psigmoid": PSigmoid(mean_keep=1.0, kappa=kappa)}
            (found,) = set_to_budget(
                wanted, asking.model, self.budget, inputs=inputs, new_tokens=asking.max_new_tokens
            ).values()
            return float(found.value)

        return share
