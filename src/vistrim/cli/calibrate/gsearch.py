"""``vistrim calibrate gsearch``: the smallest share of visual tokens for each layer that retains performance."""

from typing import Annotated

import typer

from vistrim.cli.calibrate import options
from vistrim.cli.starting import importing


def gsearch(
    out: options.Out,
    model: options.Model = "reference",
    error: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Share of the untouched model's performance that may be lost in total."),
    ] = 0.005,
    group: Annotated[
        int, typer.Option(min=1, help="Adjacent layers with the same rate, which shortens the search by this factor.")
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
    """Search the smallest share of visual tokens for each layer that retains the model's performance.

    From the first layer to the last, by bisection. Repeat the command to resume an interrupted search. The number of
    tokens is the result: to search for a --budget, use psigmoid or st3.

    Example: vistrim calibrate gsearch --model llava-hf/llava-1.5-7b-hf --data mine.jsonl --out schedule.json
    """
    # Imported late: torch and transformers take seconds, and --help needs neither.
    with importing():
        from vistrim.cli.calibrate.rates_search import RatesSearch
        from vistrim.cli.calibrate.search import Calibration

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
