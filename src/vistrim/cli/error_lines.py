"""How commands fail: one line on standard error and an exit code, never a traceback for what a user did."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.core import TyperGroup

from vistrim.errors import InputError, ParameterError, VistrimError
from vistrim.loading import is_out_of_memory

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
LONGEST = 300
"""Characters of what another library says."""

# Typer exports only this one of the errors that its parser raises; they share its base class.
ParserError: type[Exception] = typer.BadParameter.__bases__[0]


class CommandError(Exception):
    """A command failed; the message names the fix."""

    exit_code = FAILED


class WrongUsageError(CommandError):
    """The command cannot be carried out as it was given."""

    exit_code = WRONG_USAGE


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Say what helps a command whose options are not those of ``run`` where memory runs out.

    Raises
    ------
    CommandError
        In place of what Python or torch raises then.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CommandError(f"out of memory: {advice}") from error


@contextmanager
def resumable() -> Iterator[None]:
    """Say how to go on where work that keeps its results is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped: the same command goes on from here", err=True)
        raise


class OneLineErrors(TyperGroup):
    """A group of commands whose errors end in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and exit."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
            sys.stdout.flush()
        except OSError as error:
            # Nothing more can be written, and Python would complain again when it flushes at exit.
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
                "other images, or another model",
                FAILED,
            )
        sys.exit(code or 0)


def _is_of_the_model(error: Exception) -> bool:
    """Whether an error was raised beyond transformers' code, and not in this package: then it is no fault of ours."""
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
