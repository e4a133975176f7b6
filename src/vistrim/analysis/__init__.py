"""Analysis of trimming: overlays of the kept tokens, trimmed against untouched runs, and attention studies."""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

if TYPE_CHECKING:
    from vistrim.analysis.comparison import Comparison, Measured, compare
    from vistrim.analysis.overlay import Region, draw_overlay, draw_regions, draw_trace, image_as_seen
    from vistrim.analysis.regions import regions_of

_HOMES = {
    "vistrim.analysis.comparison": ("Comparison", "Measured", "compare"),
    "vistrim.analysis.overlay": ("Region", "draw_overlay", "draw_regions", "draw_trace", "image_as_seen"),
    "vistrim.analysis.regions": ("regions_of",),
}

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


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, _HOMES)
