"""``vistrim batch``: answers to a file of prompts."""

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from vistrim._utils.progress import progress_bars
from vistrim.batching.prompts import read_prompts
from vistrim.cli.answering import Actors, Ray, answering
from vistrim.cli.budgets import Budget
from vistrim.cli.error_lines import CommandError, WrongUsageError, resumable
from vistrim.cli.loading_options import Device, Dtype, Model
from vistrim.cli.output_folders import check_folder
from vistrim.cli.starting import importing
from vistrim.evaluation.typical_inputs import typical


def batch_command(
    file: Annotated[
        Path,
        typer.Argument(
            help='Lines of {"image": "photo.png", "prompt": "What is this?"}, with paths relative to the file.',
            metavar="INPUT.jsonl",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of answers and manifest; an interrupted job resumes from it.", metavar="DIR")
    ],
    model: Model = "reference",
    method: Annotated[
        str,
        typer.Option(
            help="Trimming method, see `vistrim methods`; st3 is its closed form, st3:schedule=auto uses the schedules "
            "of a model; 'untouched' for none.",
            metavar="NAME[:KEY=VALUE,...][+...]",
        ),
    ] = "st3",
    budget: Budget = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts per batch.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 160,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampled answers; 0 for greedy ones.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampled answers.")] = 0,
    ray: Ray = None,
    actors: Actors = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print manifest.json instead of a summary.")] = False,
) -> None:
    """Answer every prompt of a file, and save each answer at once.

    Writes answers.jsonl, errors.jsonl (rows without an answer), manifest.json and leaderboard.json. Repeat the command
    to resume an interrupted job, or to answer rows that were added or corrected.

    Example: vistrim batch prompts.jsonl --model llava-hf/llava-1.5-7b-hf --method st3 --out answers
    """
    # The cheapest checks come first: torch takes seconds to import, transformers takes longer, and a model longest.
    check_folder(out)
    prompts = read_prompts(file)
    generation = {"do_sample": True, "temperature": temperature} if temperature else {}
    try:
        with importing():
            from vistrim.batching.predictor import Predictor, columns

            predictor = Predictor(model, method, budget, dtype, device, max_new_tokens, generation, seed)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    with importing():
        from vistrim._utils.environment import command_line
        from vistrim._utils.store import check_settings
        from vistrim.batching.job import ANSWERS, ERRORS, MANIFEST, run_job
        from vistrim.cli.models import check_loading
    if ray is None:
        check_loading(dtype, device)
    before = check_settings(out / ANSWERS, predictor.settings())
    if budget is not None and prompts.questions:
        # A job keeps its method when rows are added to its file.
        predictor.resolved = before.get("resolved")
        predictor.budget_prompts = columns(typical(list(prompts.questions.values())))
    content = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    source = {"command": command_line(), "input": {"file": str(file), "sha256": content}}
    with answering(ray, actors, batch_size) as (identify, answerer), resumable():
        bar = f"answering {len(prompts.questions)} prompts"
        with progress_bars({bar: len(prompts.questions)}) as advance:
            found = run_job(
                prompts,
                predictor,
                out,
                identity=identify(predictor),
                answerer=answerer,
                source=source,
                advance=lambda answered: advance(bar, answered),
            )
    if as_json:
        typer.echo(json.dumps(found.manifest))
    else:
        last = found.manifest["last_run"]
        if budget is not None:
            typer.echo(f"{method} at {budget} = {found.manifest['settings']['resolved']}")
        typer.echo(f"{len(found.answers)} answers, {last['new']} of them new, in {last['seconds']:.1f} s")
        typer.echo(f"written: {out / ANSWERS}, {MANIFEST}")
    if found.failed:
        first = found.failed[0]
        raise CommandError(
            f"{len(found.failed)} rows have no answer, first line {first.line} ({first.error}): see {out / ERRORS}, "
            "correct them, and repeat the command"
        )
