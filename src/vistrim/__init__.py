"""vistrim: trim visual tokens in multimodal language models.

>>> model, processor = vistrim.load("reference")
>>> with vistrim.trim(model, vistrim.ST3()) as run:
...     output = model.generate(**inputs, max_new_tokens=64)
>>> run.report
"""

from importlib import import_module
from typing import Any

from vistrim._version import __version__ as __version__
from vistrim.engine.report.trace import Trace
from vistrim.engine.report.trim_report import TrimReport
from vistrim.errors import (
    LoadError,
    MethodError,
    UnsupportedGenerationError,
    UnsupportedModelError,
    UnsupportedReleaseError,
    VistrimError,
)
from vistrim.loading import load
from vistrim.methods import (
    PVTP,
    SGL,
    ST3,
    VTA,
    VTCCLS,
    VTW,
    YOPO,
    DyVTE,
    FasterVLM,
    FastV,
    GSearch,
    Hybrid,
    Method,
    Pool,
    PSigmoid,
    PyramidDrop,
    QueCC,
    Random,
    SparseVLM,
    Uniform,
    VisPruner,
    compose,
    get_method,
    list_methods,
)
from vistrim.support import MethodSupport, ModelSupport, describe_support
from vistrim.trimming import Trim, trim

check: Any

__all__ = [
    "PVTP",
    "SGL",
    "ST3",
    "VTA",
    "VTCCLS",
    "VTW",
    "YOPO",
    "DyVTE",
    "FastV",
    "FasterVLM",
    "GSearch",
    "Hybrid",
    "LoadError",
    "Method",
    "MethodError",
    "MethodSupport",
    "ModelSupport",
    "PSigmoid",
    "Pool",
    "PyramidDrop",
    "QueCC",
    "Random",
    "SparseVLM",
    "Trace",
    "Trim",
    "TrimReport",
    "Uniform",
    "UnsupportedGenerationError",
    "UnsupportedModelError",
    "UnsupportedReleaseError",
    "VisPruner",
    "VistrimError",
    "check",
    "compose",
    "describe_support",
    "get_method",
    "list_methods",
    "load",
    "trim",
]


def __getattr__(name: str) -> Any:
    # The features stand on what is above, and are imported when one of them is asked for.
    if name == "check":
        return import_module("vistrim.checking").check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
