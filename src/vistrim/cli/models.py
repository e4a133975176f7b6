"""Loading a model for a command, and preparing it to be trimmed."""

from contextlib import nullcontext
from typing import Any

import huggingface_hub
import transformers
import typer
from rich.console import Console

import vistrim
from vistrim.cli.error_lines import WrongUsageError
from vistrim.errors import LoadError
from vistrim.loading import is_local, resolve_device, resolve_dtype
from vistrim.prompting import UNKNOWN, prompt_format


def check_loading(dtype: str, device: str) -> None:
    """Refuse a dtype or device that is not to be had.

    Raises
    ------
    WrongUsageError
        With the choices.
    """
    try:
        resolve_dtype(dtype)
        resolve_device(device)
    except LoadError as error:
        raise WrongUsageError(str(error)) from error


def load_model(name: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a model and its processor, with a spinner on standard error if that is a terminal.

    If the format of its prompts is not known, standard error says which one is used.

    Raises
    ------
    LoadError
        See `vistrim.load`.
    """
    silence_libraries()
    console = Console(stderr=True, highlight=False, markup=False)
    # A spinner would hide the progress bars of a download.
    if console.is_terminal and not is_local(name):
        console.print(f"loading {name} from huggingface.co or its cache on this machine")
    with console.status(f"loading {name}") if is_local(name) else nullcontext():
        model, processor = vistrim.load(name, dtype=dtype, device=device)
    note_format(prompt_format(processor).name)
    return model, processor


def note_format(name: str) -> None:
    """Say on standard error how prompts are formed, by a format's name, if that is a guess."""
    if name == UNKNOWN.name:
        typer.echo(f"note: prompts are {name}: compare with the model's documentation", err=True)


def describe_model(name: str) -> vistrim.ModelSupport:
    """Find out what a model supports, from its config alone.

    Raises
    ------
    LoadError, UnsupportedModelError
        See `vistrim.describe_support`.
    """
    silence_libraries()
    return vistrim.describe_support(name)


def silence_libraries() -> None:
    """Keep libraries quiet: their notes and warnings would surround the one line that says what went wrong."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()
