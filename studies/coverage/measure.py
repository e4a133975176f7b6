"""Why a description loses facts: remaining tokens of each shape, and the place in the answer where shapes are missing.

For every shape of the described scenes: has the last decoder layer still a visual token of it after prefill, and does
the description say everything about it? Shapes are described in raster order, so that the n-th column shows how
far into the answer a method stays right.

    python -m studies.coverage.measure --out studies/coverage/results/coverage-reference.json
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from studies.record import record
from vistrim import load
from vistrim.cli.parsing import parse_method
from vistrim.methods import Method
from vistrim.prompting import format_prompts
from vistrim.reference.processing import GRID
from vistrim.reference.rendering import patch_owners, render
from vistrim.reference.scenes import LEVELS, Scene, generate_scene
from vistrim.reference.tasks import ask, describe
from vistrim.trimming import trim

METHODS = ("st3", "st3:preset=compact", "pvtp", "vta", "uniform:keep=0.25", "random:keep=0.25")
#: Shapes of a scene, at most.
SHAPES = 8


@torch.no_grad()
def look(model: Any, processor: Any, scene: Scene, prompt: str, method: Method) -> list[dict[str, Any]]:
    """For each shape in raster order: whether a visual token of it was left, and whether it was described right."""
    inputs = format_prompts(processor, [prompt], [[render(scene)]])
    with trim(model, method) as run:
        output = model.generate(**inputs, max_new_tokens=160, do_sample=False)
    stages = run.report.stages
    kept = stages[-1].kept[0] if stages else range(GRID * GRID)
    owners = patch_owners(scene, GRID)
    left = {int(owners[i]) for i in kept}
    text = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    clauses = text.split(" and ")
    return [
        {"shape": number, "left": number in left, "right": describe(shape) in clauses}
        for number, shape in enumerate(scene.shapes)
    ]


def summary(seen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares over shapes; None where there is none to take a share of."""

    def right(shapes: Sequence[dict[str, Any]]) -> float | None:
        return mean(s["right"] for s in shapes) if shapes else None

    return {
        "shapes": len(seen),
        "left": mean(s["left"] for s in seen),
        "right": right(seen),
        "right_if_left": right([s for s in seen if s["left"]]),
        "right_if_gone": right([s for s in seen if not s["left"]]),
        "right_by_number": [right([s for s in seen if s["shape"] == n]) for n in range(SHAPES)],
    }


def main() -> None:
    """Run the analysis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference")
    parser.add_argument("--method", action="append", help="repeatable; ST³, its halves and baselines by default")
    parser.add_argument("--number", type=int, default=100, help="scenes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    methods = {spec: parse_method(spec) for spec in options.method or METHODS}
    model, processor = load(options.model, device="cpu")
    scenes = [generate_scene("test", i, LEVELS["full"]) for i in range(options.number)]
    prompts = [ask("description", scene, Random(i)) for i, scene in enumerate(scenes)]

    results = {}
    for spec, method in methods.items():
        seen: list[dict[str, Any]] = []
        for scene, question in track(list(zip(scenes, prompts, strict=True)), spec, console=Console(stderr=True)):
            assert question is not None
            seen += look(model, processor, scene, question.prompt, method)
        results[spec] = summary(seen)

    columns = ("token left", "right", "right if left", "right if gone", *(f"{n + 1}." for n in range(SHAPES)))
    table = Table("", *columns, title="Shapes described right, %; by place in the description")
    for spec, row in results.items():
        values = [row[key] for key in ("left", "right", "right_if_left", "right_if_gone")] + row["right_by_number"]
        table.add_row(spec, *("" if value is None else f"{100 * value:.0f}" for value in values))
    Console(width=140).print(table)
    record(options, results=results)


if __name__ == "__main__":
    main()
