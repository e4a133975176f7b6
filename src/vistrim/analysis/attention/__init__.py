"""What a model attends to, layer by layer, and what its rankings of visual tokens are worth."""

from vistrim.analysis.attention.rankings import RANKINGS, GivenRanking
from vistrim.analysis.attention.report import Analysis
from vistrim.analysis.attention.runner import analyze

__all__ = ["RANKINGS", "Analysis", "GivenRanking", "analyze"]
