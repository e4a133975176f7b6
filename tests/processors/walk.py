"""``python -m tests.processors.walk FAMILY FOLDER``: every step through one family, in a process of its own.

Writes ``outcomes.json`` into the folder: for each step an empty text, or how it failed. A process each, as some need a copy of
torchvision, whose absence others are tried with.
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

from tests.processors import command_steps as commands  # noqa: E402
from tests.processors import python_steps as python  # noqa: E402
from tests.processors.place import Place  # noqa: E402
from vistrim.engine.cache import spare_room  # noqa: E402

STEPS: dict[str, Callable[[Place], None]] = {
    "methods": commands.methods,
    "run": commands.run,
    "run, two images": commands.run_two,
    "compare": commands.compare,
    "overlay": commands.overlay,
    "overlay, two images": commands.overlay_two,
    "bench": commands.bench,
    "eval": commands.evaluate,
    "calibrate yopo": commands.yopo,
    "calibrate dyvte": commands.dyvte,
    "calibrate gsearch": commands.gsearch,
    "calibrate psigmoid": commands.psigmoid,
    "untouched": python.untouched,
    "padded batch": python.batch,
    "second turn": python.second_turn,
    "video": python.video,
}


def walk(place: Place) -> dict[str, str]:
    """How each step ended: nothing, or what went wrong."""
    return {name: _outcome(step, place) for name, step in STEPS.items() if name != "video" or place.checkpoint.has_video}


def _outcome(step: Callable[[Place], None], place: Place) -> str:
    try:
        step(place)
    except Exception as error:
        traceback.print_exc()
        kind = {commands.CommandFailedError: "", python.StockModelError: "transformers: "}
        return kind.get(type(error), f"{type(error).__name__}: ") + " ".join(str(error).split())
    return ""


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    # As in tests/conftest.py.
    spare_room.WORTH_ROOM = 0
    here = Path(sys.argv[2])
    (here / "outcomes.json").write_text(json.dumps(walk(Place(sys.argv[1], here)), indent=1))
