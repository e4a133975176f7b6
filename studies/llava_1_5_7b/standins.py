"""Stand-ins for the benchmarks, about reference scenes: ``python -m studies.llava_1_5_7b.standins FOLDER``.

They have the names, metrics and generation arguments of the benchmarks' tasks, so that the study can be tried offline.
"""

import argparse
from pathlib import Path
from typing import Any

from studies.llava_1_5_7b.plan import BENCHMARKS
from vistrim.reference.suites import questions

PREFIX = "standin_"
SETTINGS = {
    "TextVQA": '{until: ["ASSISTANT:"]}',
    "VizWiz": '{until: ["ASSISTANT:"]}',
    "MMBench": '{until: ["ASSISTANT:"], max_new_tokens: 64, temperature: 0, top_p: 1.0, do_sample: false}',
}
USUAL = "{max_new_tokens: 16, temperature: 0, top_p: 1.0, num_beams: 1, do_sample: false}"
UTILS = """
from vistrim.evaluation.items import exact_match


def look(document):
    return [document["image"]]


def score(document, results):
    found = exact_match(results[0], document["answer"])
    return {{name: found for name in {metrics}}}
"""
TASK = """\
task: {name}
dataset_path: {data}
dataset_kwargs: {{load_from_disk: true}}
test_split: test
output_type: generate_until
doc_to_visual: !function {utils}.look
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
process_results: !function {utils}.score
generation_kwargs: {settings}
metric_list: [{metrics}]
metadata: [{{version: 0.0}}]
"""


def write(folder: Path, model: str, number: int) -> None:
    """Write the tasks, each with its own questions."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for seed, benchmark in enumerate(BENCHMARKS):
        name = PREFIX + benchmark.task
        _save(folder / "data" / name, questions(model, "short", limit=number, seed=seed)[:number])
        listed = ", ".join(f"{{metric: {one}, aggregation: mean, higher_is_better: true}}" for one in benchmark.metrics)
        (folder / f"{name}_utils.py").write_text(UTILS.format(metrics=benchmark.metrics))
        task = TASK.format(
            name=name,
            data=folder / "data" / name,
            utils=f"{name}_utils",
            settings=SETTINGS.get(benchmark.name, USUAL),
            metrics=listed,
        )
        (folder / f"{name}.yaml").write_text(task)


def _save(place: Path, items: list[Any]) -> None:
    import datasets

    rows = [{"image": item.image(), "question": item.prompt, "answer": item.answer} for item in items]
    types = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    content = datasets.Dataset.from_list(rows, features=datasets.Features(types))
    datasets.DatasetDict({"test": content}).save_to_disk(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--number", type=int, default=8, help="questions per benchmark")
    options = parser.parse_args()
    write(options.folder, options.model, options.number)
