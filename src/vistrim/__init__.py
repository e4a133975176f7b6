"""vistrim: trim visual tokens in multimodal language models.

>>> model, processor = vistrim.load("reference")
>>> with vistrim.trim(model, vistrim.ST3()) as run:
...     output = model.generate(**inputs, max_new_tokens=64)
>>> run.report
"""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily
from vistrim._version import __version__ as __version__

# Public names are imported on first use, because torch and transformers take seconds to import.
if TYPE_CHECKING:
    from vistrim.analysis.attention.runner import analyze
    from vistrim.benchmark.benching import bench
    from vistrim.budgeting import at_budget, method_from_dict
    from vistrim.checking.checks import check
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
    from vistrim.evaluation.evaluating import evaluate
    from vistrim.loading import load
    from vistrim.methods import (
        DART,
        PVTP,
        SCOPE,
        SGL,
        ST3,
        VTA,
        VTCCLS,
        VTW,
        YOPO,
        Blind,
        CDPruner,
        DivPrune,
        Downsample,
        DyVTE,
        FasterVLM,
        FastV,
        GSearch,
        HoloV,
        Hybrid,
        Method,
        Pool,
        PSigmoid,
        PyramidDrop,
        QueCC,
        Random,
        SparseVLM,
        Uniform,
        VisionZip,
        VisPruner,
        VScan,
        compose,
        get_method,
        list_methods,
        load_method,
    )
    from vistrim.support import MethodSupport, ModelSupport, describe_support
    from vistrim.trimming import Trim, trim

_HOMES = {
    "vistrim.analysis.attention.runner": ("analyze",),
    "vistrim.benchmark.benching": ("bench",),
    "vistrim.budgeting": ("at_budget", "method_from_dict"),
    "vistrim.checking.checks": ("check",),
    "vistrim.engine.report.trace": ("Trace",),
    "vistrim.engine.report.trim_report": ("TrimReport",),
    "vistrim.errors": (
        "LoadError",
        "MethodError",
        "UnsupportedGenerationError",
        "UnsupportedModelError",
        "UnsupportedReleaseError",
        "VistrimError",
    ),
    "vistrim.evaluation.evaluating": ("evaluate",),
    "vistrim.loading": ("load",),
    "vistrim.support": ("MethodSupport", "ModelSupport", "describe_support"),
    "vistrim.trimming": ("Trim", "trim"),
}
"""Public names by the module that defines them. All others are in ``vistrim.methods``."""

__all__ = [
    "DART",
    "PVTP",
    "SCOPE",
    "SGL",
    "ST3",
    "VTA",
    "VTCCLS",
    "VTW",
    "YOPO",
    "Blind",
    "CDPruner",
    "DivPrune",
    "Downsample",
    "DyVTE",
    "FastV",
    "FasterVLM",
    "GSearch",
    "HoloV",
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
    "VScan",
    "VisPruner",
    "VisionZip",
    "VistrimError",
    "analyze",
    "at_budget",
    "bench",
    "check",
    "compose",
    "describe_support",
    "evaluate",
    "get_method",
    "list_methods",
    "load",
    "load_method",
    "method_from_dict",
    "trim",
]


def __getattr__(name: str) -> Any:
    found = globals()[name] = find_lazily(__name__, name, __all__, _HOMES, "vistrim.methods")
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
