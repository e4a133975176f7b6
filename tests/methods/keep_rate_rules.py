"""G-Search and P-Sigmoid for the dense reference, from the formulas. No code of the package is used."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.methods.dense_reference import Dense, Row, Rule
from tests.methods.training_free_rules import only, top, visual_rows


@dataclass
class KeepRates(Rule):
    """Before each layer but the first, the share ``rates[layer]`` of all visual tokens stays."""

    rates: Sequence[float]

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer == 0:
            return rows
        visual = visual_rows(rows)
        # At the layer before, the last prompt token attends to what came before this prompt, and to it.
        received = dense.weights[layer - 1].mean(0)[-1]
        past = len(received) - len(rows)
        keep = math.ceil(self.rates[layer] * dense.visual_tokens)
        stay = top([float(received[past + i]) for i in visual], keep)
        return only(rows, visual, {visual[i] for i in stay})


def midpoint(depth: int, budget: float, kappa: float) -> float:
    """Depth (in layers) at which half of the tokens are left, so that the integral over all layers is the budget."""
    full, rest = math.exp(kappa * depth), math.exp(kappa * depth * (1 - budget))
    return math.log((full - rest) / (rest - 1)) / kappa


def sigmoid_rates(depth: int, budget: float, kappa: float) -> list[float]:
    """P-Sigmoid: rates of mean ``budget`` that fall along a sigmoid, behind a first layer that keeps all."""
    alpha = midpoint(depth, budget, kappa)
    curve = [1 / (1 + math.exp(kappa * (layer + 0.5 - alpha))) for layer in range(1, depth)]

    def scaled(factor: float) -> list[float]:
        return [1.0, *(min(1.0, factor * rate) for rate in curve)]

    # The sum rises with the factor up to the depth.
    low, high = 0.0, 1.0
    while sum(scaled(high)) < budget * depth:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(scaled(middle)) < budget * depth else (low, middle)
    return scaled(high)


def schedule_file(folder: Path, method: str, rates: Sequence[float]) -> str:
    """A file of rates as a search would have written it for a tiny model."""
    path = folder / f"{method}.json"
    schedule = {"format": 1, "method": method, "model": "", "layers": len(rates), "rates": list(rates), "rows": "last"}
    path.write_text(json.dumps(schedule))
    return str(path)
