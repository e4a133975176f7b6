"""The reference models' questions, as the command line names them."""

from vistrim.cli.error_lines import WrongUsageError
from vistrim.evaluation.items import Item, with_images
from vistrim.reference.items import EVALUATED, items
from vistrim.reference.tasks import SHORT_TASKS

TASKS_HELP = f"Comma-separated: {', '.join(EVALUATED)}; 'short' for all with short answers about scenes."


def read_items(
    tasks: str, split: str, level: str = "full", limit: int = 100, seed: int = 0, images: str = "own"
) -> list[Item]:
    """Questions of the tasks that are named, comma-separated; see `vistrim.reference.items.items`.

    Raises
    ------
    WrongUsageError
        If there are no such tasks or questions.
    """
    named = [part.strip() for part in tasks.split(",") if part.strip()]
    names = dict.fromkeys(name for part in named for name in (SHORT_TASKS if part == "short" else (part,)))
    if not names:
        raise WrongUsageError(f"no task: choose from short, {', '.join(EVALUATED)}")
    try:
        return [item for name in names for item in with_images(items(name, split, level, limit, seed), images)]
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
