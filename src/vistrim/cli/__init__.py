"""The ``vistrim`` command: parsing of options and printing of results."""

from vistrim.cli.app import main

__all__ = ["main"]
