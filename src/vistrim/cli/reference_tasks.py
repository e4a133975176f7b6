"""The reference models' questions, as the command line names them."""

from vistrim.cli.error_lines import WrongUsageError
from vistrim.evaluation.items import Item, with_images
from vistrim.reference.items import EVALUATED

TASKS_HELP = (
    f"Comma-separated: {', '.join(EVALUATED)}; 'short' for all with short answers about scenes, 'sentence' for those "
    "that reference-lm answers in a sentence."
)


def read_items(
    model: str, tasks: str, split: str, level: str = "full", limit: int = 100, seed: int = 0, images: str = "own"
) -> list[Item]:
    """Questions of the tasks that are named, comma-separated; see `vistrim.reference.items.items`.

    Parameters
    ----------
    model : str
        Whose questions: each reference model is asked what it was trained to answer.

    Raises
    ------
    WrongUsageError
        If there are no such tasks or questions.
    """
    # Rendering imports torch, and this module is imported for its help alone, too.
    from vistrim.reference.suites import suite_of

    suite = suite_of(model)
    named = [part.strip() for part in tasks.split(",") if part.strip()]
    names = dict.fromkeys(name for part in named for name in suite.together.get(part, (part,)))
    if not names:
        raise WrongUsageError(f"no task: choose from {', '.join((*suite.together, *suite.evaluated))}")
    try:
        return [item for name in names for item in with_images(suite.items(name, split, level, limit, seed), images)]
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
