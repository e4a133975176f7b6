"""One of the processes of `test_tensor_parallel`: ``python -m tests.runtimes.shared_heads FOLDER``.

Reads a list of jobs from the folder, does them on models that are sharded over all processes, and writes what it found.
"""

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from transformers.distributed import DistributedConfig

from tests.families.later_turns import next_turn
from tests.families.zoo import FAMILIES
from tests.tiny import generate, logits
from vistrim import ST3, VTW, YOPO, FasterVLM, PyramidDrop, SparseVLM, UnsupportedModelError, trim
from vistrim.methods import sparsevlm

METHODS = {
    "st3": ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
    "pyramiddrop": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2), positions="original"),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2), positions="original"),
    "sparsevlm-plus": SparseVLM(variant="plus", layers=(0, 2), counts=(6, 2)),
    "fastervlm": FasterVLM(5),
    "vtw": VTW(3),
    "yopo-window": YOPO(3, None, None, 1.0),
    "yopo-ffn": YOPO(None, None, None, 0.5),
}


def do(model: Any, name: str, method: str, mode: str) -> dict[str, Any]:
    """Trim a model during a workload, and return the results to compare."""
    family = FAMILIES[name]
    samples = [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]
    # Fewer than there are, so that the heads of one process may be chosen and those of the other not.
    few_heads = mock.patch.object(sparsevlm, "PRIORITY_HEADS", 2)
    with few_heads, torch.no_grad(), trim(model, METHODS[method]) as run:
        if mode == "two turns":
            inputs = family.batch(samples[:1])
            first = generate(model, inputs, 4)
            more = [family.sample(1, 6, seed=3)]
            second = generate(model, next_turn(family, model, inputs, first, samples[:1], more), 4)
            found = torch.cat([logits(first), logits(second)])
        elif mode == "beams":
            found = generate(model, family.batch(samples[:2]), 5, num_beams=2, output_scores=True).sequences_scores
        else:
            found = logits(generate(model, family.batch(samples if mode == "padded" else samples[1:2]), 6))
    reports = [report.to_dict() for report in run.reports]
    kept = [(report["stages"], report["kv_tokens_per_step"], report["prefill_flops"]) for report in reports]
    return {
        "found": found,
        "kept": kept,
        "bytes": [(report["kv_bytes"], report["kv_bytes_full"]) for report in reports],
    }


def refusal(model: Any, method: str) -> str:
    """The message with which a method is refused."""
    try:
        trim(model, METHODS[method])
    except UnsupportedModelError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = {}
    for name, jobs, refused in torch.load(folder / "jobs.pt"):
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder / name, distributed_config=DistributedConfig(tp_plan="auto")
        ).eval()
        found[name] = [do(model, name, *job) for job in jobs], [refusal(model, method) for method in refused]
    torch.save(found, folder / f"found-{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
