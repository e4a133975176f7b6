"""``vistrim calibrate gsearch``: for each layer the smallest share of the visual tokens that loses nothing."""

from typing import Annotated

import typer

from vistrim.cli.calibrate import options


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
    # torch and transformers take seconds to import: not for --help.
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
