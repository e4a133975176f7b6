"""``vistrim calibrate gsearch``: for each layer the smallest share of the visual tokens that loses nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Annotated

import typer

from vistrim.calibration.gsearch import RateSearch, most_evaluations, search_rates
from vistrim.calibration.rate_evaluations import Evaluations
from vistrim.cli.calibrate import options
from vistrim.cli.calibrate.search import Calibration, Found, Search
from vistrim.cli.error_lines import WrongUsageError
from vistrim.core.costs import DecoderShape


@dataclass(frozen=True)
class RatesSearch(Search):
    """G-Search; the fields are those of `search_rates`."""

    method = "gsearch"

    error: float
    group: int

    def total(self, shape: DecoderShape) -> int:
        """Of all bisections."""
        return most_evaluations(shape.layers, self.group)

    def run(self, evaluations: Evaluations, shape: DecoderShape, advance: Callable[[str], None]) -> Found:
        """Layer by layer."""

        def tell(best: RateSearch) -> None:
            advance(f"{100 * best.performance:.1f} % with {100 * mean(best.rates):.1f} % of the tokens")

        full = evaluations.untouched.performance
        if full == 0:
            raise WrongUsageError("the untouched model's performance is 0: nothing can be lost, so ask other questions")
        found = search_rates(evaluations, shape.layers, full, self.error, self.group, advance=tell)
        return Found(found.rates, found.performance)


def gsearch(
    out: options.Out,
    model: options.Model = "reference",
    error: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the untouched model's performance that may be lost in all.")
    ] = 0.005,
    group: Annotated[
        int, typer.Option(min=1, help="Neighbouring layers with the same rate: the search takes so many times less.")
    ] = 2,
    data: options.Data = None,
    tasks: options.Tasks = None,
    limit: options.Limit = None,
    split: options.Split = "validation",
    seed: options.Seed = 0,
    objective: options.Objective = "accuracy",
    rows: options.Rows = "last",
    batch_size: options.BatchSize = 8,
    max_new_tokens: options.MaxNewTokens = 160,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Search for each layer the smallest share of the visual tokens that loses (next to) nothing.

    From the first layer to the last, by bisection; a search that was stopped goes on when the command is repeated.

    Example: vistrim calibrate gsearch --model llava-hf/llava-1.5-7b-hf --data mine.jsonl --out schedule.json
    """
    calibration = Calibration(
        model=model,
        out=out,
        data=data,
        tasks=tasks,
        split=split,
        limit=limit,
        seed=seed,
        objective=objective,
        rows=rows,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        dtype=dtype,
        device=device,
        force=force,
        as_json=as_json,
    )
    calibration.run(RatesSearch(error, group))
