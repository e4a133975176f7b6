"""vistrim: trim visual tokens in multimodal language models.

>>> model, processor = vistrim.load("reference")
>>> with vistrim.trim(model, vistrim.ST3()) as run:
...     output = model.generate(**inputs, max_new_tokens=64)
>>> run.report
"""

import importlib
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
    "analyze",  # noqa: F822
    "bench",  # noqa: F822
    "check",  # noqa: F822
    "compose",
    "describe_support",
    "evaluate",  # noqa: F822
    "get_method",
    "list_methods",
    "load",
    "trim",
]

_ABOVE = {
    "analyze": "vistrim.analysis.attention.runner",
    "bench": "vistrim.benchmark.benching",
    "check": "vistrim.checking",
    "evaluate": "vistrim.evaluation.evaluating",
}
"""Functions of packages that import this one's modules."""


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(importlib.import_module(_ABOVE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
