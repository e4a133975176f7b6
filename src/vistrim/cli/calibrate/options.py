"""Options that the commands share."""

from pathlib import Path
from typing import Annotated

import typer

from vistrim.cli.loading_options import Device, Dtype, Model
from vistrim.cli.questions import TASKS_HELP, Data

Out = Annotated[
    Path,
    typer.Option("--out", help="Schedule file to write; an interrupted search resumes.", metavar="FILE.json"),
]
Force = Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")]
Tasks = Annotated[str | None, typer.Option("--tasks", help=TASKS_HELP, show_default="short,description")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Questions per task (25 by default), or lines of --data (all).")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice of questions and of the search.")]
Split = Annotated[str, typer.Option("--split", help="Split of the tasks: validation or train.")]
Objective = Annotated[
    str,
    typer.Option(
        "--objective",
        help="accuracy: mean score of the answers; agreement: share of answers that equal the untouched model's, word "
        "for word, which needs no correct answers.",
    ),
]
Rows = Annotated[
    str,
    typer.Option("--rows", help="Rows whose attention ranks: last (prompt token) or prompt (text after the image)."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Questions per batch.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]
Json = Annotated[bool, typer.Option("--json", help="Print only one JSON object.")]

__all__ = [
    "BatchSize",
    "Data",
    "Device",
    "Dtype",
    "Force",
    "Json",
    "Limit",
    "MaxNewTokens",
    "Model",
    "Objective",
    "Out",
    "Rows",
    "Seed",
    "Split",
    "Tasks",
]
