"""The ``vistrim`` command: parses and prints, does nothing else."""

from vistrim.cli.app import main

__all__ = ["main"]
