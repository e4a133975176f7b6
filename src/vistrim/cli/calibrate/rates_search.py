"""The search of ``vistrim calibrate gsearch``, with the interface that all searches share."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

from vistrim.calibration.gsearch import RateSearch, most_evaluations, search_rates
from vistrim.calibration.rate_evaluations import Asking, Evaluations
from vistrim.cli.calibrate.search import Found, Search
from vistrim.cli.error_lines import WrongUsageError
from vistrim.engine import describe


@dataclass(frozen=True)
class RatesSearch(Search):
    """G-Search; the fields are those of `search_rates`."""

    method = "gsearch"

    error: float
    group: int

    def total(self, asking: Asking) -> int:
        """Largest number of evaluations of all bisections."""
        return most_evaluations(describe(asking.model).decoder_shape.layers, self.group)

    def run(self, evaluations: Evaluations, asking: Asking, advance: Callable[[str], None]) -> Found:
        """Search layer by layer."""

        def show(best: RateSearch) -> None:
            advance(f"{100 * best.performance:.1f} % with {100 * mean(best.rates):.1f} % of the tokens")

        full = evaluations.untouched.performance
        if full == 0:
            raise WrongUsageError("the untouched model's performance is 0: use questions that it can answer")
        layers = describe(asking.model).decoder_shape.layers
        found = search_rates(evaluations, layers, full, self.error, self.group, advance=show)
        return Found(found.rates, found.performance)
