"""Looking at what trimming did: overlays of the kept tokens, and trimmed against untouched runs."""

from vistrim.analysis.comparison import Comparison, Measured, compare
from vistrim.analysis.overlay import draw_overlay, draw_report, image_as_seen

__all__ = ["Comparison", "Measured", "compare", "draw_overlay", "draw_report", "image_as_seen"]
