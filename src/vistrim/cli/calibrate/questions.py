"""Calibration questions, never from the split that figures are reported on."""

from pathlib import Path

from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.questions import read_items
from vistrim.cli.starting import importing
from vistrim.evaluation.items import Item

SPLITS = ("train", "validation")


def calibration_items(
    model: str,
    data: Path | None,
    tasks: str | None,
    split: str,
    limit: int | None,
    seed: int,
    objective: str,
    *,
    default_tasks: str = "short,description",
    default_limit: int = 25,
) -> list[Item]:
    """Questions to calibrate on; see `vistrim.cli.questions.read_items`.

    Raises
    ------
    WrongUsageError
        If there are none, or they do not support the objective.
    InputError
        If the file of questions is invalid; the message names the line.
    """
    if split not in SPLITS:
        raise WrongUsageError(
            f"--split {split}: choose {' or '.join(SPLITS)}; test questions are reserved for evaluation"
        )
    found = read_items(
        model,
        data,
        tasks,
        default_tasks,
        split=split,
        limit=limit,
        default_limit=default_limit,
        seed=seed,
        answered=objective == "accuracy",
    )
    # Imported late: it needs torch, which takes seconds to import, and a missing file is found without.
    with importing():
        from vistrim.calibration.rate_evaluations import check_objective
    try:
        check_objective(objective, found)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    return found
