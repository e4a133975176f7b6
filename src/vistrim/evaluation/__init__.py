"""Accuracy retained: the untouched model and trimming methods on the same questions."""

from typing import TYPE_CHECKING, Any

from vistrim._utils.lazy_names import find_lazily

# Commands read items and questions before they import torch.
if TYPE_CHECKING:
    from vistrim.evaluation.accuracy_summary import Figures, Row, summarize
    from vistrim.evaluation.evaluating import Evaluation, evaluate
    from vistrim.evaluation.items import Item, Task
    from vistrim.evaluation.question_files import read_questions
    from vistrim.evaluation.questions import Question
    from vistrim.evaluation.records import Failure, Records, Sample
    from vistrim.evaluation.runner import EvaluationError, answer_all

_HOMES = {
    "vistrim.evaluation.accuracy_summary": ("Figures", "Row", "summarize"),
    "vistrim.evaluation.evaluating": ("Evaluation", "evaluate"),
    "vistrim.evaluation.items": ("Item", "Task"),
    "vistrim.evaluation.question_files": ("read_questions",),
    "vistrim.evaluation.questions": ("Question",),
    "vistrim.evaluation.records": ("Failure", "Records", "Sample"),
    "vistrim.evaluation.runner": ("EvaluationError", "answer_all"),
}

__all__ = [
    "Evaluation",
    "EvaluationError",
    "Failure",
    "Figures",
    "Item",
    "Question",
    "Records",
    "Row",
    "Sample",
    "Task",
    "answer_all",
    "evaluate",
    "read_questions",
    "summarize",
]


def __getattr__(name: str) -> Any:
    return find_lazily(__name__, name, __all__, _HOMES)
