"""Steps through the command line, as a user types them."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.processors.place import PICTURES, SIZES, Place, draw
from vistrim.cli.app import app

METHOD = ("--method", "fastv")
SHORT = ("--max-new-tokens", "2")
QUESTIONS = ("--tasks", "color", "--limit", "2")
SEARCH = (*QUESTIONS, *SHORT, "--objective", "agreement")


class CommandFailedError(Exception):
    """A command failed; the message is its output."""


def command(*arguments: str) -> Any:
    """Run a command in this process.

    Raises
    ------
    CommandFailedError
        With the command's error line, or the exception that it let through.
    """
    result = CliRunner().invoke(app, list(arguments), prog_name="vistrim")
    if result.exit_code:
        said = next((line for line in result.stderr.splitlines() if line.startswith("error:")), result.stderr[-200:])
        crash = result.exception
        told = said if isinstance(crash, SystemExit) else f"traceback: {type(crash).__name__}: {crash}"
        raise CommandFailedError(told)
    return result


def methods(place: Place) -> None:
    """Prints the methods that can run."""
    command("methods", "--model", place.model_path)


def run(place: Place) -> None:
    """A picture of each kind, by itself."""
    failed = {}
    for name in PICTURES:
        try:
            _run(place, name)
        except CommandFailedError as error:
            failed.setdefault(str(error), []).append(name)
    _raise(failed)


def run_two(place: Place) -> None:
    """Two pictures of different sizes."""
    _run(place, "square", "wide")


def compare(place: Place) -> None:
    """Beside the untouched model."""
    _run(place, "square", "--compare", "--repeats", "1")


def overlay(place: Place) -> None:
    """The image file is written; its size may vary."""
    for name in SIZES:
        _drawn(place, name)


def overlay_two(place: Place) -> None:
    """Two pictures of different sizes are drawn."""
    _drawn(place, "square", "wide")


def bench(place: Place) -> None:
    """Times of a checkpoint."""
    small = ("--new-tokens", "2", "--repeat", "1", "--text-tokens", "128")
    command("bench", "--model", place.model_path, *METHOD, *small, "--out", place.result("bench"))


def evaluate(place: Place) -> None:
    """Answers to the tasks of the reference models."""
    command("eval", "--model", place.model_path, *METHOD, *QUESTIONS, *SHORT, "--out", place.result("eval"))


def yopo(place: Place) -> None:
    """A mask of heads, which the model can be trimmed with."""
    out = place.result("heads.safetensors")
    command("calibrate", "yopo", "--model", place.model_path, *QUESTIONS, "--out", out)
    _run(place, "square", "--method", f"yopo:heads={out}")


def dyvte(place: Place) -> None:
    """Routers, which the model can be trimmed with."""
    out = place.result("routers.safetensors")
    small = ("--tasks", "color", "--limit", "12", "--width", "4", "--epochs", "2")
    command("calibrate", "dyvte", "--model", place.model_path, *small, "--out", out)
    _run(place, "square", "--method", f"dyvte:routers={out}")


def gsearch(place: Place) -> None:
    """Shares by bisection."""
    out = place.result("gsearch.json")
    command("calibrate", "gsearch", "--model", place.model_path, *SEARCH, "--group", "4", "--out", out)
    assert json.loads(Path(out).read_text())


def psigmoid(place: Place) -> None:
    """Shares by Bayesian optimization."""
    out = place.result("psigmoid.json")
    some = ("--budget", "tokens=0.5", "--trials", "2")
    command("calibrate", "psigmoid", "--model", place.model_path, *SEARCH, *some, "--out", out)
    assert json.loads(Path(out).read_text())


def videos(place: Place) -> None:
    """A file of questions about the frames of videos, and about an image."""
    frames = [f"frame-{i}.png" for i in range(4)]
    for number, name in enumerate(frames):
        draw((64, 48)).rotate(20 * number).save(place.folder / name)
    shown = ({"video": frames}, {"image": frames[0]}, {"video": frames[:2]})
    path = place.folder / "videos.jsonl"
    path.write_text("\n".join(json.dumps({**one, "prompt": "What is this?", "scorer": "none"}) for one in shown))
    command("eval", "--model", place.model_path, *METHOD, "--data", str(path), *SHORT, "--out", place.result("videos"))


def _drawn(place: Place, *names: str) -> None:
    picture = Path(place.result(f"overlay-{'-'.join(names)}.png"))
    said = _run(place, *names, "--overlay", str(picture)).stderr
    if not picture.exists():
        raise CommandFailedError(next((line for line in said.splitlines() if "overlay" in line), said))


def _run(place: Place, *arguments: str) -> Any:
    given = [place.picture(argument) if argument in PICTURES else argument for argument in arguments]
    method = () if "--method" in given else METHOD
    return command("run", *given, "-p", "What is this?", "--model", place.model_path, *method, *SHORT)


def _raise(failed: dict[str, list[str]]) -> None:
    if failed:
        raise CommandFailedError("; ".join(f"{', '.join(names)}: {told}" for told, names in failed.items()))
