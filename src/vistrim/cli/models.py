"""Loading models for commands."""

from typing import Any

import huggingface_hub
import transformers
import typer

import vistrim
from vistrim._utils.progress import spinner
from vistrim.cli.error_lines import WrongUsageError
from vistrim.errors import LoadError
from vistrim.loading import is_local, is_on_hub, resolve_device, resolve_dtype
from vistrim.prompting import UNKNOWN, prompt_format


def check_loading(dtype: str, device: str) -> None:
    """Refuse a dtype or device that is not available.

    Raises
    ------
    WrongUsageError
        If so; the message names the choices.
    """
    try:
        resolve_dtype(dtype)
        resolve_device(device)
    except LoadError as error:
        raise WrongUsageError(str(error)) from error


def load_model(name: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Load a model and its processor, with a spinner on standard error if that is a terminal.

    If the format of its prompts is not known, a note on standard error names the format used.

    Raises
    ------
    LoadError
        See `vistrim.load`.
    """
    silence_libraries()
    note_hub(name)
    # A spinner would hide the progress bars of a download.
    with spinner(f"loading {name}", shown=is_local(name)):
        model, processor = vistrim.load(name, dtype=dtype, device=device)
    note_format(prompt_format(processor).name)
    return model, processor


def note_hub(name: str) -> None:
    """Print on standard error that a model is looked up on the Hub, which takes long if the Hub cannot be reached.

    Raises
    ------
    LoadError
        See `vistrim.loading.is_on_hub`.
    """
    if is_on_hub(name):
        typer.echo(f"looking for {name} on the Hugging Face Hub, or in its cache on this machine", err=True)


def note_format(name: str) -> None:
    """Print a note on standard error if the format of prompts, given by its name, is a guess."""
    if name == UNKNOWN.name:
        typer.echo(f"note: prompts are {name}: compare with the model's documentation", err=True)


def describe_model(name: str) -> vistrim.ModelSupport:
    """Describe the support for a model, from its config alone.

    Raises
    ------
    LoadError, UnsupportedModelError
        See `vistrim.describe_support`.
    """
    silence_libraries()
    note_hub(name)
    return vistrim.describe_support(name)


def silence_libraries() -> None:
    """Silence libraries, whose notes and warnings would hide the error line."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()
