"""``python -m tests.processors.walk``: every step through families, for lines ``{"family": ..., "folder": ...}``.

Answers with a line each: for every step an empty text, or how it failed. A process of its own, as most families need a
copy of torchvision, and the others are tried without any; one for many families, as importing takes longer
than the steps.
"""

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.processors.torchvision_copy import declare_operators

OPERATORS = declare_operators()

import torch  # noqa: E402
import transformers  # noqa: E402

from tests.processors.command_steps import CommandFailedError  # noqa: E402
from tests.processors.place import Place  # noqa: E402
from tests.processors.python_steps import StockModelError  # noqa: E402
from tests.processors.steps import STEPS  # noqa: E402
from vistrim.engine.cache import spare_room  # noqa: E402


def walk(place: Place) -> dict[str, str]:
    """The result of each step: nothing, or the error."""
    return {
        name: _outcome(step, place) for name, step in STEPS.items() if name != "video" or place.checkpoint.has_video
    }


def _outcome(step: Callable[[Place], None], place: Place) -> str:
    try:
        step(place)
    except Exception as error:
        traceback.print_exc()
        kind = {CommandFailedError: "", StockModelError: "transformers: "}
        return kind.get(type(error), f"{type(error).__name__}: ") + " ".join(str(error).split())
    return ""


def serve() -> None:
    """Run the families that standard input names."""
    # Whatever libraries print goes elsewhere.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(walk(Place(asked["family"], Path(asked["folder"])))), file=answers, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    # As in tests/conftest.py.
    spare_room.WORTH_ROOM = 0
    serve()
