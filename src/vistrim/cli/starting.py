"""Imports of commands that take seconds."""

from contextlib import AbstractContextManager

from vistrim._utils.progress import spinner


def importing() -> AbstractContextManager[None]:
    """Show in a terminal why a command has not begun."""
    return spinner("importing torch and transformers")
