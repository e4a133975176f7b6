"""Local tasks for lmms-eval about reference scenes; as a script, an evaluation that saves its results."""

import json
import sys
from pathlib import Path
from typing import Any

from vistrim.evaluation.items import Item

UTILS = """
from vistrim.evaluation.items import exact_match

def look(document):
    return [document["image"]]

def ask(document, lmms_eval_specific_kwargs=None, round_idx=None, previous_output=None, previous_round_info=None):
    if not round_idx:
        return document["question"]
    again = f"{document['question']} {previous_output[-1]}"
    return [document["image"]], again, round_idx == 2, previous_output, previous_round_info

def score(document, results):
    return {"score": exact_match(results[0], document["answer"])}

def score_rounds(document, results):
    return {"score": float(len(results[0]))}
"""
TASK = """\
task: {name}
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
doc_to_visual: !function utils.look
doc_to_target: "{{{{answer}}}}"
metadata: [{{version: 0.0}}]
"""
GENERATE = """\
generation_kwargs: {max_new_tokens: 8, temperature: 0, do_sample: false, until: [qqq]}
metric_list: [{metric: score, aggregation: mean, higher_is_better: true}]
"""
OWN = {
    "vistrim_answers": f"""\
output_type: generate_until
doc_to_text: "{{{{question}}}}"
process_results: !function utils.score
{GENERATE}""",
    "vistrim_rounds": f"""\
output_type: generate_until_multi_round
doc_to_text: !function utils.ask
process_results: !function utils.score_rounds
{GENERATE}""",
    "vistrim_choices": """\
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [red, green, blue]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}
"""The rest of each task, by name."""


def write_tasks(folder: Path, items: list[Item]) -> Path:
    """Write tasks and their questions, and the same questions for `vistrim eval --data`; return the latter."""
    import datasets

    rows = [{"image": item.image(), "question": item.prompt, "answer": item.answer} for item in items]
    types = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    questions = datasets.Dataset.from_list(rows, features=datasets.Features(types))
    datasets.DatasetDict({"test": questions}).save_to_disk(folder / "data")
    (folder / "utils.py").write_text(UTILS)
    for name, own in OWN.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, data=folder / "data") + own)
    lines = []
    for number, row in enumerate(rows):
        row["image"].save(folder / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "prompt": row["question"], "answer": row["answer"]}))
    (folder / "questions.jsonl").write_text("\n".join(lines))
    return folder / "questions.jsonl"


def run(folder: Path, task: str, arguments: str, **options: Any) -> dict[str, Any]:
    """Results of lmms-eval's evaluator; None on all ranks but the first."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    tasks = TaskManager(include_path=str(folder), include_defaults=False, model_name="vistrim")
    return simple_evaluate(
        model="vistrim", model_args=arguments, tasks=[task], device="cpu", task_manager=tasks, **options
    )


def answers(results: dict[str, Any], task: str) -> list[Any]:
    """The answer to each question, in order."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples]


if __name__ == "__main__":
    place, task, arguments, out = sys.argv[1:]
    found = run(Path(place), task, arguments, batch_size=8)
    if found is not None:
        kept = {"answers": answers(found, task), "results": found["results"], "throughput": found["throughput"]}
        Path(out).write_text(json.dumps(kept))
