"""Every method on one tiny model: on the device it has to do what it does on the CPU, where the tests check it."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from studies.gpu.cells import Cells, difference
from tests import tiny
from tests.engine.test_published_methods_in_all_modes import METHODS
from tests.families.masked_reference import placed
from tests.families.matrix import CASES
from vistrim import Method, trim

FAMILY = "llava (all methods)"
STEPS = 6
EXACT = 1e-4
"""Allowed difference, as a share of the largest logit."""

Case = tuple[Any, dict[str, Tensor]]
"""A model, and inputs on its device."""


def check(device: str, cells: Cells) -> None:
    """Kept tokens, logits and bytes of each method, in a padded batch in float32."""
    on_cpu = tiny.build()
    model = copy.deepcopy(on_cpu).to(device)
    inputs = tiny.batch(tiny.RAGGED)
    there = placed(inputs, model)
    methods = {name: case.method for cases in CASES.values() for name, case in cases.items()} | METHODS
    for name, method in methods.items():
        work = partial(_check, name, method, (model, there), (on_cpu, inputs), cells)
        cells.guarded(FAMILY, torch.float32, name, work)


def _check(name: str, method: Method, there: Case, here: Case, cells: Cells) -> None:
    found, report = _generate(*there, method)
    expected, reference = _generate(*here, method)
    read = ("stages", "kv_bytes", "kv_tokens_per_step")
    wrong = [key for key in read if getattr(report, key) != getattr(reference, key)]
    # The answers are compared as far as they are the same.
    same = (found.sequences.cpu() == expected.sequences).all(0)[here[1]["input_ids"].shape[1] :]
    steps = min(STEPS, 1 + int(same.long().cumprod(0).sum()))
    worst = difference(tiny.logits(found)[:, :steps], tiny.logits(expected)[:, :steps])
    cells.compared(FAMILY, torch.float32, f"{name}, as on the CPU", worst, EXACT, wrong=wrong, steps=steps)


def _generate(model: Any, inputs: dict[str, Tensor], method: Method) -> tuple[Any, Any]:
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, STEPS)
    return output, run.report
