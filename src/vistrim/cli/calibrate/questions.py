"""Calibration questions: those of the reference models, or the user's own."""

import hashlib
import json
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from vistrim.calibration.rate_evaluations import check_objective
from vistrim.cli.error_lines import WrongUsageError
from vistrim.cli.image_files import read_images
from vistrim.cli.prompts import is_unicode
from vistrim.cli.reference_tasks import read_items
from vistrim.errors import PromptError
from vistrim.evaluation.items import Item, Task
from vistrim.prompting import check_text

DEFAULT_TASKS = "short,description"
DEFAULT_LIMIT = 25
DATA = Task("data")
"""Questions of the user's own."""
SPLITS = ("train", "validation")


def read_questions(
    model: str, data: Path | None, tasks: str | None, split: str, limit: int | None, seed: int, objective: str
) -> list[Item]:
    """Questions to calibrate on.

    Parameters
    ----------
    model : str
        Whose own tasks, where there is no data.
    data : Path or None
        JSON lines of the user's own: ``{"image": path, "prompt": str, "answer": str}``, the path relative to the file;
        the answer may be missing if the objective needs none.
    tasks : str or None
        Without data: tasks of the reference models.
    split : str
        "train" or "validation"; of the tasks.
    limit : int or None
        Questions per task (None: 25), or lines of the data (None: all).
    seed : int
        Which ones.
    objective : str
        See `vistrim.calibration.rate_evaluations`.

    Raises
    ------
    WrongUsageError
        If there are no such questions, a line is bad or an image cannot be read; says which line.
    """
    if split not in SPLITS:
        raise WrongUsageError(
            f"--split {split}: choose {' or '.join(SPLITS)}; test questions are for figures, not for choosing"
        )
    if data is None:
        named = DEFAULT_TASKS if tasks is None else tasks
        found = read_items(model, named, split, limit=limit or DEFAULT_LIMIT, seed=seed)
    elif tasks is not None:
        raise WrongUsageError("--data and --tasks are two sources of questions: leave one of them out")
    else:
        found = _own(data, objective)
        if limit is not None and limit < len(found):
            chosen = sorted(Random(f"calibrate:{seed}").sample(range(len(found)), limit))
            found = [found[i] for i in chosen]
    try:
        check_objective(objective, found)
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    return found


def digest(questions: list[Item]) -> str:
    """Tell sets of questions apart; the images of the user's own are in their names."""
    content = [(item.id, item.prompt, item.answer) for item in questions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def refuse_placeholders(questions: list[Item], processor: Any) -> None:
    """Refuse questions that contain a placeholder for images or videos."""
    for item in questions:
        try:
            check_text(processor, f"{item.prompt}\n{item.answer}")
        except PromptError as error:
            raise WrongUsageError(f"the question {item.id} or its answer: {error}") from error


def _own(data: Path, objective: str) -> list[Item]:
    try:
        # Other line separators may stand inside of a JSON string.
        lines = data.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise WrongUsageError(f"--data {data} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise WrongUsageError(f"--data {data} is no UTF-8 text: give JSON lines") from error
    return [_item(data, number, line, objective) for number, line in enumerate(lines, 1) if line.strip()]


def _item(data: Path, number: int, line: str, objective: str) -> Item:
    where = f"{data}, line {number}"
    try:
        values: Any = json.loads(line)
    except ValueError as error:
        raise WrongUsageError(f"{where} is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise WrongUsageError(f'{where} is no JSON object: write {{"image": ..., "prompt": ..., "answer": ...}}')
    for key in ("image", "prompt"):
        if not isinstance(values.get(key), str) or not values[key].strip():
            raise WrongUsageError(f'{where} has no "{key}": give it as text')
    answer = values.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise WrongUsageError(f'{where}: "answer" must be text')
    if objective == "accuracy" and not (answer or "").strip():
        raise WrongUsageError(
            f'{where} has no "answer": add the right one, or use --objective agreement, which needs none'
        )
    if not is_unicode(values["prompt"] + (answer or "")):
        raise WrongUsageError(f"{where} has half a character (an escaped surrogate without its other half): mend it")
    image = data.parent / values["image"]
    try:
        read_images([image])
    except WrongUsageError as error:
        raise WrongUsageError(f"{where}: {error}") from error
    name = hashlib.sha256(image.read_bytes()).hexdigest()[:16]
    return Item(f"{name}/{number}", DATA, values["prompt"].strip(), answer or "", partial(_read, image))


def _read(path: Path) -> Image.Image:
    return read_images([path])[0]
