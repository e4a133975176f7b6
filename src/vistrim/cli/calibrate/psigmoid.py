"""``vistrim calibrate psigmoid``: shares that fall with depth like the sigmoid that answers best within a budget."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from vistrim.calibration.psigmoid import MISSING, KappaSearch, search_kappa
from vistrim.calibration.rate_evaluations import Evaluations, Untouched
from vistrim.cli.calibrate import options
from vistrim.cli.calibrate.search import Calibration, Found, Search
from vistrim.cli.error_lines import WrongUsageError
from vistrim.core.costs import DecoderShape, prefill_flops
from vistrim.core.schedules import share_kept
from vistrim.core.sigmoid import share_for_flops, sigmoid_rates
from vistrim.errors import MissingPackageError


@dataclass(frozen=True)
class SteepnessSearch(Search):
    """P-Sigmoid; the fields are the command's options."""

    method = "psigmoid"

    budget: float | None
    flops: float | None
    trials: int
    seed: int

    def total(self, shape: DecoderShape) -> int:
        """All trials."""
        if self.budget is not None:
            # Refuses a budget that such a decoder cannot keep.
            sigmoid_rates(1.0, self.budget, shape.layers)
        return self.trials

    def run(self, evaluations: Evaluations, shape: DecoderShape, advance: Callable[[str], None]) -> Found:
        """By Bayesian optimisation."""
        untouched = evaluations.untouched

        def rates(kappa: float) -> tuple[float, ...]:
            return sigmoid_rates(kappa, self._budget(kappa, shape, untouched), shape.layers)

        def tell(best: KappaSearch) -> None:
            advance(f"{100 * best.performance:.1f} % with kappa {best.kappa:.3g}")

        found = search_kappa(lambda kappa: evaluations(rates(kappa)), shape.layers, self.trials, self.seed, tell)
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


def psigmoid(
    out: options.Out,
    model: options.Model = "reference",
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the visual tokens to keep, mean over layers.")
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Instead: share of the decoder's prefill FLOPs, for prompts of mean length."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Values of kappa to try; more only add to earlier ones.")] = 20,
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
    """Search how steeply the shares of visual tokens are to fall with depth, within a budget.

    By Bayesian optimisation; a search that was stopped goes on when the command is repeated.

    Example: vistrim calibrate psigmoid --budget 0.33 --out schedule.json
    """
    if (budget is None) == (flops is None):
        raise WrongUsageError("give either --budget, a share of the visual tokens, or --flops: --budget 0.33, say")
    if importlib.util.find_spec("optuna") is None:
        raise MissingPackageError(MISSING)
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
    calibration.run(SteepnessSearch(budget, flops, trials, seed))
