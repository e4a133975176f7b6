"""Checks on the user's own model and hardware that trimming is computed correctly."""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

if TYPE_CHECKING:
    from vistrim.checking.checks import check
    from vistrim.checking.results import CheckReport, Outcome

_HOMES = {"vistrim.checking.checks": ("check",), "vistrim.checking.results": ("CheckReport", "Outcome")}

__all__ = ["CheckReport", "Outcome", "check"]


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, _HOMES)
