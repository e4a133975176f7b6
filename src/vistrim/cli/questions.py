"""Questions of a command: those of the reference models, or from the user's own file."""

from pathlib import Path
from random import Random
from typing import Annotated

import typer

from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.starting import importing
from vistrim.evaluation.items import Item
from vistrim.evaluation.question_files import read_questions
from vistrim.evaluation.questions import EXAMPLE
from vistrim.reference.items import EVALUATED

TASKS_HELP = (
    f"Comma-separated: {', '.join(EVALUATED)}; 'short' for all with short answers about scenes, 'sentence' for those "
    "that reference-lm answers in a sentence."
)
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help=f"Your own questions instead of --tasks: lines of {EXAMPLE}, with paths relative to the file; or a folder "
        "of datasets' save_to_disk.",
        metavar="FILE.jsonl",
    ),
]


def read_items(
    model: str,
    data: Path | None,
    tasks: str | None,
    default_tasks: str,
    *,
    split: str,
    limit: int | None,
    default_limit: int,
    seed: int,
    level: str = "full",
    images: str = "own",
    answered: bool = True,
) -> list[Item]:
    """Read the questions of a file, or make those of tasks.

    Parameters
    ----------
    model : str
        Name of the model, which decides on the available tasks; ignored with a file.
    data : Path or None
        File of questions; see `vistrim.evaluation.question_files.read_questions`.
    tasks, split, level, images
        See `vistrim.reference.suites.questions`; ignored with a file.
    limit : int or None
        Questions per task, or of the file (None: all).
    default_tasks, default_limit
        Values for tasks if ``tasks`` and ``limit`` are None.
    seed : int
        Seed of the choice of questions.
    answered : bool
        Whether the file's questions need answers.

    Raises
    ------
    WrongUsageError
        If there are no such questions, or the options exclude each other.
    InputError
        If the file is invalid; the message names the line.
    """
    if data is None:
        with importing():
            from vistrim.reference.suites import questions
        try:
            named = default_tasks if tasks is None else tasks
            return questions(
                model, named, split=split, level=level, limit=limit or default_limit, seed=seed, images=images
            )
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
    if tasks is not None:
        raise WrongUsageError("--data and --tasks exclude each other: leave one out")
    if images != "own":
        raise WrongUsageError(f"--images {images} is only for --tasks: leave it out, or change the images of --data")
    own = read_questions(data, answered=answered)
    if limit is None or limit >= len(own):
        return list(own)
    return [own[i] for i in sorted(Random(f"data:{seed}").sample(range(len(own)), limit))]
