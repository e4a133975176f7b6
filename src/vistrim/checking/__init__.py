"""Proof on the user's own model and hardware that trimming computes what it should."""

from vistrim.checking.check import check
from vistrim.checking.results import CheckReport, Outcome

__all__ = ["CheckReport", "Outcome", "check"]
