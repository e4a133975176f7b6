"""Accuracy retained: the untouched model and trimming methods on the same questions."""

from vistrim.errors import ResumeError
from vistrim.evaluation.accuracy_summary import Figures, Row, summarize
from vistrim.evaluation.record_file import RecordFile
from vistrim.evaluation.runner import evaluate

__all__ = ["Figures", "RecordFile", "ResumeError", "Row", "evaluate", "summarize"]
