"""Errors of commands: one line on standard error and an exit code, without a traceback for errors of use."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.core import TyperGroup

from vistrim._utils.memory import is_out_of_memory
from vistrim.errors import InputError, ParameterError, VistrimError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
LONGEST = 300
"""Longest message of another library, in characters."""

# Typer exports only one of the errors that its parser raises; they share its base class.
ParserError: type[Exception] = typer.BadParameter.__bases__[0]


class CommandError(Exception):
    """A command failed; the message names the fix."""

    exit_code = FAILED


class WrongUsageError(CommandError):
    """The command's arguments are invalid."""

    exit_code = WRONG_USAGE


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Give advice for the command's own options if memory runs out; the default advice is for ``run``.

    Raises
    ------
    CommandError
        Instead of the out-of-memory error of Python or torch.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CommandError(f"out of memory: {advice}") from error


@contextmanager
def resumable() -> Iterator[None]:
    """Print how to resume if work that saves its results is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: repeat the command to resume", err=True)
        raise


class OneLineErrors(TyperGroup):
    """A group of commands that print errors in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
            sys.stdout.flush()
        except OSError as error:
            # Standard output is closed, and Python would raise again when it flushes at exit.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = FAILED if isinstance(error, BrokenPipeError) else _complain(error, FAILED)
        # Older releases of Typer raise Abort, newer ones return the code.
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except ParserError as error:
            code = _complain(_parser_message(error), WRONG_USAGE)
        except CommandError as error:
            code = _complain(error, error.exit_code)
        except (InputError, ParameterError) as error:
            code = _complain(error, WRONG_USAGE)
        except VistrimError as error:
            code = _complain(error, FAILED)
        except Exception as error:
            if is_out_of_memory(error):
                code = _complain(
                    "out of memory: use fewer images, a smaller model, --dtype bfloat16 or less --max-new-tokens",
                    FAILED,
                )
                sys.exit(code)
            if not _is_of_the_model(error):
                raise
            reason = " ".join(str(error).split())[:LONGEST]
            code = _complain(
                f"the model or its processor fails on these inputs ({type(error).__name__}: {reason}): use "
                "other images or another model",
                FAILED,
            )
        sys.exit(code or 0)


def _is_of_the_model(error: Exception) -> bool:
    """Whether an error was raised in or below transformers, and not in vistrim."""
    trace, modules = error.__traceback__, []
    while trace is not None:
        modules.append(str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0])
        trace = trace.tb_next
    return "transformers" in modules and modules[-1] != "vistrim"


def _complain(error: Exception | str, exit_code: int) -> int:
    label = typer.style("error:", fg=typer.colors.RED, bold=True)
    typer.echo(f"{label} {' '.join(str(error).split())}", err=True)
    return exit_code


def _parser_message(error: Any) -> str:
    command = error.ctx.command_path if error.ctx is not None else "vistrim"
    message = error.format_message()
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{command} --help`."
