"""Accuracy retained: the untouched model and trimming methods on the same questions."""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

# Items and tasks are read by commands that run no model.
if TYPE_CHECKING:
    from vistrim.errors import ResumeError
    from vistrim.evaluation.accuracy_summary import Figures, Row, summarize
    from vistrim.evaluation.record_file import RecordFile
    from vistrim.evaluation.runner import evaluate

_HOMES = {
    "vistrim.errors": ("ResumeError",),
    "vistrim.evaluation.accuracy_summary": ("Figures", "Row", "summarize"),
    "vistrim.evaluation.record_file": ("RecordFile",),
    "vistrim.evaluation.runner": ("evaluate",),
}

__all__ = ["Figures", "RecordFile", "ResumeError", "Row", "evaluate", "summarize"]


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, _HOMES)
