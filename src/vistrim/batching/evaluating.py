"""`vistrim.evaluate` with predictors, which may run elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vistrim._utils.labels import UNTOUCHED
from vistrim._utils.progress import progress_bars
from vistrim.batching.answering import Answerer, checked
from vistrim.batching.predictor import Predictor, outcome
from vistrim.evaluation.accuracy_summary import summarize
from vistrim.evaluation.evaluating import SAMPLES, Evaluation
from vistrim.evaluation.items import Item
from vistrim.evaluation.records import Records
from vistrim.evaluation.runner import known, record
from vistrim.methods.base.notation import parse_method

OF_THE_METHOD = ("resolved", "files")
"""Keys of `Predictor.identity` that differ between methods; all others must be the same."""


def evaluate_with(
    predictors: Mapping[str, Predictor],
    items: Sequence[Item],
    *,
    identify: Callable[[Predictor], dict[str, str]],
    answerer: Answerer,
    out: Path,
    batch_size: int,
    seed: int,
) -> Evaluation:
    """Ask predictors the same questions; see `vistrim.evaluate`, whose folders this function resumes.

    Parameters
    ----------
    predictors : mapping
        By label; of the same model and settings, the untouched one among them as "untouched".
    items : sequence of Item
        Questions.
    identify : callable
        Returns the identity of a predictor where it runs.
    answerer : callable
        Runs a predictor.
    out : Path
        Folder of ``samples.jsonl``.
    batch_size : int
        Questions per batch, for the settings of the result.
    seed : int
        Seed of the bootstrap intervals.

    Raises
    ------
    VistrimError
        See `vistrim.evaluate`.
    """
    identities = {label: identify(predictor) for label, predictor in predictors.items()}
    of_the_model = {k: v for k, v in identities[UNTOUCHED].items() if k not in OF_THE_METHOD}
    settings = {**of_the_model, "max_new_tokens": predictors[UNTOUCHED].max_new_tokens}
    methods = {
        label: parse_method(found["resolved"]) for label, found in identities.items() if found["resolved"] != UNTOUCHED
    }
    asked = {item.id: item for item in items}
    with (
        Records(out / SAMPLES, settings) as records,
        progress_bars(dict.fromkeys(predictors, len(items))) as advance,
    ):
        for label, method in methods.items():
            records.claim({f"files and guide of {method}": identities[label]["files"]})
        for label, predictor in predictors.items():
            name = identities[label]["resolved"]
            todo = [item for item in items if not known(records, name, item)]
            advance(label, len(items) - len(todo))
            for batch in checked(answerer(predictor, todo)):
                records.append([record(name, asked[row["id"]], outcome(row)) for row in batch])
                advance(label, len(batch))
        rows = summarize(records, items, methods, seed)
        others = records.methods_beside(row.method for row in rows)
    return Evaluation(rows, {**settings, "batch_size": batch_size, "questions": len(items), "seed": seed}, others)
