"""Accuracy retained: the untouched model and trimming methods on the same questions."""

from vistrim.evaluation.accuracy_summary import Figures, Row, summarize
from vistrim.evaluation.evaluating import Evaluation, evaluate
from vistrim.evaluation.items import Item, Task
from vistrim.evaluation.questions import Question, read_questions
from vistrim.evaluation.records import Failure, Records, Sample
from vistrim.evaluation.runner import EvaluationError, answer_all

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
