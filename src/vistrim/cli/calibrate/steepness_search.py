"""The search of ``vistrim calibrate psigmoid``, with the interface that all searches share."""

from collections.abc import Callable
from dataclasses import dataclass

from vistrim.calibration.psigmoid import KappaSearch, search_kappa
from vistrim.calibration.rate_evaluations import Evaluations, Untouched
from vistrim.cli.calibrate.search import Found, Search
from vistrim.cli.error_lines import WrongUsageError
from vistrim.core.costs import DecoderShape, prefill_flops
from vistrim.core.schedules import share_kept
from vistrim.core.sigmoid import share_for_flops, sigmoid_rates


@dataclass(frozen=True)
class SteepnessSearch(Search):
    """P-Sigmoid; the fields are the command's options."""

    method = "psigmoid"

    budget: float | None
    flops: float | None
    trials: int
    seed: int

    def total(self, shape: DecoderShape) -> int:
        """Number of trials."""
        if self.budget is not None:
            # Raises for a budget that this decoder cannot meet.
            sigmoid_rates(1.0, self.budget, shape.layers)
        return self.trials

    def run(self, evaluations: Evaluations, shape: DecoderShape, advance: Callable[[str], None]) -> Found:
        """Search by Bayesian optimization."""
        untouched = evaluations.untouched

        def rates(kappa: float) -> tuple[float, ...]:
            return sigmoid_rates(kappa, self._budget(kappa, shape, untouched), shape.layers)

        def show(best: KappaSearch) -> None:
            advance(f"{100 * best.performance:.1f} % with kappa {best.kappa:.3g}")

        found = search_kappa(lambda kappa: evaluations(rates(kappa)), shape.layers, self.trials, self.seed, show)
        notes = {"kappa": found.kappa, "budget": self._budget(found.kappa, shape, untouched)}
        return Found(rates(found.kappa), found.performance, notes)

    def _budget(self, kappa: float, shape: DecoderShape, untouched: Untouched) -> float:
        if self.budget is not None:
            return self.budget
        assert self.flops is not None
        text, visual = round(untouched.text_tokens), round(untouched.visual_tokens)

        def cost(rates: tuple[float, ...]) -> int:
            return prefill_flops(shape, [text + share_kept(rate, visual) for rate in rates])

        try:
            return share_for_flops(kappa, self.flops * cost((1.0,) * shape.layers), cost, shape.layers)
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
