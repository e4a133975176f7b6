"""Runs the command line in this process."""

from functools import cache
from typing import Any
from unittest.mock import patch

from typer.main import get_command
from typer.testing import CliRunner

from vistrim.cli.app import app

_command = cache(get_command)


def vistrim(*arguments: str, stdin: str | bytes | None = None) -> Any:
    """Result with ``exit_code``, ``stdout`` and ``stderr``."""
    # Typer would read the signatures of all commands again for every call.
    with patch("typer.testing._get_command", _command):
        return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False, prog_name="vistrim")


def error_line(result: Any) -> str:
    """The one line that a failing command may write."""
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")
