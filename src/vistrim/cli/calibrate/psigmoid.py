"""``vistrim calibrate psigmoid``: keep rates by the sigmoid over depth that performs best within a budget."""

import importlib.util
from typing import Annotated

import typer

from vistrim.calibration.psigmoid import MISSING
from vistrim.cli.budgets import ScheduleBudget, check_budget
from vistrim.cli.calibrate import options
from vistrim.cli.starting import importing
from vistrim.errors import MissingPackageError


def psigmoid(
    out: options.Out,
    budget: ScheduleBudget,
    model: options.Model = "reference",
    trials: Annotated[int, typer.Option(min=1, help="Values of kappa to try; more extend an earlier search.")] = 20,
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
    """Search the steepness kappa with which keep rates of visual tokens fall with depth, within a budget.

    By Bayesian optimization. Repeat the command to resume an interrupted search.

    Example: vistrim calibrate psigmoid --budget tokens=0.33 --out schedule.json
    """
    check_budget(budget)
    if importlib.util.find_spec("optuna") is None:
        raise MissingPackageError(MISSING)
    # Imported late: torch and transformers take seconds, and --help needs neither.
    with importing():
        from vistrim.cli.calibrate.search import Calibration
        from vistrim.cli.calibrate.steepness_search import SteepnessSearch

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
    calibration.run(SteepnessSearch(budget, trials, seed))
