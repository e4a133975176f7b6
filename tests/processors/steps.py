"""All steps through a family, in the order in which a user may come to them."""

from collections.abc import Callable

from tests.processors import command_steps as commands
from tests.processors import python_steps as python
from tests.processors.place import Place


def _video(place: Place) -> None:
    python.video(place)
    commands.videos(place)


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
    "untouched, two images": python.untouched_two,
    "padded batch": python.batch,
    "second turn": python.second_turn,
    "video": _video,
}
