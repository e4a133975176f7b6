"""A job of `vistrim batch`: answers every prompt of a file that has none yet, and saves each at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from vistrim._utils.environment import stamp
from vistrim._utils.files import write_whole
from vistrim._utils.store import Store
from vistrim.batching.answering import Answerer, checked
from vistrim.batching.predictor import Predictor, outcome
from vistrim.batching.prompts import BadRow, Prompts, fingerprint
from vistrim.errors import ResumeError
from vistrim.evaluation.entries import Entry, write_entries
from vistrim.evaluation.questions import Question, digest

ANSWERS, ERRORS, MANIFEST = "answers.jsonl", "errors.jsonl", "manifest.json"


@dataclass(frozen=True)
class Finished:
    """Result of `run_job`.

    Attributes
    ----------
    answers : list of dict
        Rows of ``answers.jsonl`` for the prompts of the file, in its order.
    failed : list of BadRow
        Rows without an answer, in the order of the file.
    manifest : dict
        Content of ``manifest.json``.
    """

    answers: list[dict[str, Any]]
    failed: list[BadRow]
    manifest: dict[str, Any]


def run_job(
    prompts: Prompts,
    predictor: Predictor,
    out: Path,
    *,
    identity: Mapping[str, str],
    answerer: Answerer,
    source: Mapping[str, Any],
    advance: Callable[[int], None] = lambda answered: None,
) -> Finished:
    """Answer all prompts that the folder has no answer to.

    Parameters
    ----------
    prompts : Prompts
        Prompts of a file.
    predictor : Predictor
        Model, method and settings.
    out : Path
        Folder of ``answers.jsonl``, ``errors.jsonl``, ``manifest.json`` and ``leaderboard.json``.
    identity : mapping
        Of the predictor, as `Predictor.identity` returns it where the model runs.
    answerer : callable
        Runs the predictor.
    source : mapping
        Command, file and its hash, for the manifest.
    advance : callable
        Called with the number of rows just answered, including those that have an answer already.

    Raises
    ------
    ResumeError
        If the folder has answers with other settings, or to another prompt of the same id.
    JobError
        If too many consecutive rows fail.
    """
    settings = {**predictor.settings(), **identity}
    lines = {question.name: line for line, question in prompts.questions.items()}
    asked = {question.id: question for question in prompts.questions.values()}
    failed = list(prompts.bad)
    start, new = time.perf_counter(), 0
    with Store(out / ANSWERS, settings, ("id",), dict) as store:
        todo = [question for question in asked.values() if not _answered(store, question)]
        _write(out, predictor, settings, source, failed)
        advance(len(asked) - len(todo))
        for batch in checked(answerer(predictor, todo)):
            found = [(asked[row["id"]], row) for row in batch]
            store.put(_row(lines[question.name], question, row) for question, row in found if not row["error"])
            bad = [BadRow(lines[question.name], question.name, row["error"]) for question, row in found if row["error"]]
            if bad:
                failed += bad
                _write_errors(out, failed)
            new += len(batch) - len(bad)
            advance(len(batch))
        seconds = time.perf_counter() - start
        answers = [store.rows[(question.name,)] for question in asked.values() if (question.name,) in store.rows]
    counts = {"rows": len(asked) + len(prompts.bad), "answered": len(answers), "failed": len(failed)}
    speed = {"new": new, "seconds": seconds, "rows_per_second": new / seconds if new else None}
    manifest = _write(out, predictor, settings, {**source, **counts, "last_run": speed}, failed)
    _write_entry(out, predictor, identity, prompts, answers, len(failed))
    return Finished(answers, sorted(failed, key=lambda row: row.line), manifest)


def _answered(store: Store[dict[str, Any]], question: Question) -> bool:
    found = store.rows.get((question.name,))
    if found is not None and found["input"] != fingerprint(question):
        raise ResumeError(
            f"{store.path} has an answer to another prompt or image with the id {question.name}: give rows an "
            '"id" of their own, or give another --out'
        )
    return found is not None


def _row(line: int, question: Question, row: Mapping[str, Any]) -> dict[str, Any]:
    given = outcome(row)
    assert not isinstance(given, str)
    scored = question.task.scored and question.answers
    return {
        "id": question.name,
        "line": line,
        "prompt": question.prompt,
        **asdict(given),
        "seconds": float(row["seconds"]),
        "score": question.score(given.answer) if scored else None,
        "input": fingerprint(question),
    }


def _write(
    out: Path,
    predictor: Predictor,
    settings: Mapping[str, Any],
    source: Mapping[str, Any],
    failed: Sequence[BadRow],
) -> dict[str, Any]:
    """Write the manifest and the rows without an answer."""
    manifest = {"model": predictor.model, **source, "settings": dict(settings), "environment": stamp()}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    _write_errors(out, failed)
    return manifest


def _write_errors(out: Path, failed: Sequence[BadRow]) -> None:
    rows = sorted(failed, key=lambda row: row.line)
    write_whole(out / ERRORS, "".join(json.dumps(asdict(row)) + "\n" for row in rows))


def _write_entry(
    out: Path,
    predictor: Predictor,
    identity: Mapping[str, str],
    prompts: Prompts,
    answers: Sequence[Mapping[str, Any]],
    failed: int,
) -> None:
    questions = list(prompts.questions.values())
    if not answers:
        return
    scores = [row["score"] for row in answers]
    names = sorted({question.task.score.__name__ for question in questions if question.task.scored})
    entry = Entry(
        protocol={
            "tool": "vistrim batch",
            "task": ", ".join(sorted({question.task.name for question in questions})),
            "questions": digest(questions),
            "metric": ", ".join(names) if None not in scores else None,
            **predictor.settings()["generation"],
        },
        model=predictor.model,
        method=identity["resolved"],
        budget=predictor.budget,
        score=mean(scores) if None not in scores else None,
        items=len(answers),
        errors=failed,
        tokens=mean(row["average_tokens"] for row in answers),
        flops=sum(row["prefill_flops"] + row["method_flops"] for row in answers)
        / sum(row["prefill_flops_full"] for row in answers),
        kv=mean(row["kv_mean"] for row in answers),
    )
    write_entries(out, [entry])
