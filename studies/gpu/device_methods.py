"""Every method on one tiny model: on the device it has to do what it does on the CPU, where the tests check it."""

import copy
from typing import Any

import torch

from tests import tiny
from tests.engine.test_published_methods_in_all_modes import METHODS
from tests.families.matrix import CASES
from tests.families.reference import placed
from vistrim import trim

STEPS = 6


def check(device: str, cells: Any) -> None:
    """Kept tokens, logits and bytes of each method, in a padded batch in float32."""
    on_cpu = tiny.build()
    model = copy.deepcopy(on_cpu).to(device)
    inputs = tiny.batch(tiny.RAGGED)
    there = placed(inputs, model)
    methods = {name: case.method for cases in CASES.values() for name, case in cases.items()} | METHODS
    for name, method in methods.items():
        label = f"{name}, as on the CPU"
        try:
            found, report = _generate(model, there, method)
            expected, reference = _generate(on_cpu, inputs, method)
            wrong = [
                key
                for key in ("stages", "kv_bytes", "kv_tokens_per_step")
                if getattr(report, key) != getattr(reference, key)
            ]
            # The answers are read as far as they are the same.
            same = (found.sequences.cpu() == expected.sequences).all(0)[inputs["input_ids"].shape[1] :]
            steps = min(STEPS, 1 + int(same.long().cumprod(0).sum()))
            ours, theirs = (tiny.logits(o).double().cpu()[:, :steps] for o in (found, expected))
            worst = float((ours - theirs).abs().max() / theirs.abs().max())
            cells.compared("llava (all methods)", torch.float32, label, worst, 1e-4, wrong=wrong, steps=steps)
        except Exception as error:
            if "device-side assert" in str(error) or "illegal memory access" in str(error):
                raise
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            cells.add("llava (all methods)", torch.float32, label, passed=False, error=text)


def _generate(model: Any, inputs: dict[str, torch.Tensor], method: Any) -> tuple[Any, Any]:
    with trim(model, method) as run:
        output = tiny.generate(model, inputs, STEPS)
    return output, run.report
