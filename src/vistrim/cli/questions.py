"""Questions as the command line names them: those of the reference models, or a file of the user's own."""

from pathlib import Path
from random import Random
from typing import Annotated

import typer

from vistrim.cli.error_lines import WrongUsageError
from vistrim.evaluation.items import Item
from vistrim.evaluation.questions import EXAMPLE, read_questions
from vistrim.reference.items import EVALUATED
from vistrim.reference.suites import questions

TASKS_HELP = (
    f"Comma-separated: {', '.join(EVALUATED)}; 'short' for all with short answers about scenes, 'sentence' for those "
    "that reference-lm answers in a sentence."
)
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help=f"Your own questions instead of --tasks: lines of {EXAMPLE}, with paths relative to the file.",
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
        Whose tasks, without a file.
    data : Path or None
        See `vistrim.evaluation.questions.read_questions`.
    tasks, split, level, images
        See `vistrim.reference.suites.questions`; without a file.
    limit : int or None
        Questions per task, or of the file (None: all).
    default_tasks, default_limit
        Of tasks, where they are None.
    seed : int
        Which ones.
    answered : bool
        Whether the file's questions need answers.

    Raises
    ------
    WrongUsageError
        If there are no such questions, or the options do not go together.
    InputError
        If the file is wrong; names the line.
    """
    if data is None:
        try:
            named = default_tasks if tasks is None else tasks
            return questions(
                model, named, split=split, level=level, limit=limit or default_limit, seed=seed, images=images
            )
        except ValueError as error:
            raise WrongUsageError(str(error)) from error
    if tasks is not None:
        raise WrongUsageError("--data and --tasks are two sources of questions: leave one of them out")
    if images != "own":
        raise WrongUsageError(f"--images {images} is for --tasks: leave it out, or give --data with other images")
    own = read_questions(data, answered=answered)
    if limit is None or limit >= len(own):
        return list(own)
    return [own[i] for i in sorted(Random(f"data:{seed}").sample(range(len(own)), limit))]
