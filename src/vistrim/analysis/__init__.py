"""Looking at what trimming did: overlays of the kept tokens, and trimmed against untouched runs."""

from vistrim.analysis.comparison import Comparison, Measured, compare
from vistrim.analysis.overlay import Region, draw_overlay, draw_regions, draw_trace, image_as_seen
from vistrim.analysis.regions import regions_of

__all__ = [
    "Comparison",
    "Measured",
    "Region",
    "compare",
    "draw_overlay",
    "draw_regions",
    "draw_trace",
    "image_as_seen",
    "regions_of",
]
