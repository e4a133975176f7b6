"""Attention of a model, layer by layer, and the quality of its rankings of visual tokens."""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

if TYPE_CHECKING:
    from vistrim.analysis.attention.names import RANKINGS
    from vistrim.analysis.attention.rankings import GivenRanking
    from vistrim.analysis.attention.report import Analysis
    from vistrim.analysis.attention.runner import analyze

_HOMES = {
    "vistrim.analysis.attention.names": ("RANKINGS",),
    "vistrim.analysis.attention.rankings": ("GivenRanking",),
    "vistrim.analysis.attention.report": ("Analysis",),
    "vistrim.analysis.attention.runner": ("analyze",),
}

__all__ = ["RANKINGS", "Analysis", "GivenRanking", "analyze"]


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, _HOMES)
