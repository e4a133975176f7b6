"""Every registered method with settings for the tiny models."""

import tempfile
from functools import cache
from pathlib import Path

import vistrim
from tests import guides
from tests.methods.dyvte_weights import saved
from tests.methods.keep_rate_rules import schedule_file
from tests.methods.quecc_weights import random_part

HEADS = ((True,) * 4, (False, True, True, False), (False,) * 4, (True, False) * 2, (True,) * 4)
_FOLDER = tempfile.TemporaryDirectory()

SETTINGS = {
    "blind": lambda: {},
    "cdpruner": lambda: {"keep": 5},
    "dart": lambda: {"keep": 8, "image_pivots": 2, "text_pivots": 2},
    "divprune": lambda: {"keep": 5},
    "downsample": lambda: {},
    "dyvte": lambda: {"routers": saved(2)},
    "fastervlm": lambda: {"keep": 5},
    "fastv": lambda: {"layer": 2, "keep": 0.4},
    "gsearch": lambda: {"schedule": schedule_file(Path(_FOLDER.name), "gsearch", (1.0, 0.8, 0.6, 0.4, 0.0))},
    "holov": lambda: {"keep": 5, "crops": 4},
    "hybrid": lambda: {"horizon": 8, "floor": 0.0, "interval": 1},
    "pool": lambda: {"keep": 4},
    "psigmoid": lambda: {"mean_keep": 0.55, "kappa": 1.5},
    "pvtp": lambda: {"start_layer": 1, "stride": 1},
    "pyramiddrop": lambda: {},
    "quecc": lambda: {"compressor": random_part()},
    "random": lambda: {},
    "scope": lambda: {"keep": 5},
    "sgl": lambda: {"guide": guides.shared()},
    "sparsevlm": lambda: {"layers": (0, 2), "counts": (6, 2)},
    "st3": lambda: {"start_layer": 1, "stride": 2, "horizon": 8, "floor": 0.0, "interval": 1},
    "uniform": lambda: {},
    "visionzip": lambda: {"dominant": 4, "contextual": 3},
    "vispruner": lambda: {"keep": 7},
    "vscan": lambda: {"keep": 8, "left": 4},
    "vta": lambda: {"horizon": 8, "floor": 0.0, "interval": 1},
    "vtc-cls": lambda: {"keep": 7, "first_layer": 0},
    "vtw": lambda: {"layer": 3},
    "yopo": lambda: {"window": 3, "heads": HEADS, "layer": 3, "ffn": 0.5},
}
"""By name: settings with which the method acts in each of its stages."""


@cache
def built(name: str) -> vistrim.Method:
    """A method by its name."""
    return vistrim.get_method(name, **SETTINGS[name]())
