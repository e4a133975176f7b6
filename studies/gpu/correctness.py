"""Tiny models of many families on a device, in three number types: nothing cut, cut, and cut in padded batches.

``python -m studies.gpu.correctness --device cuda --out FOLDER --seconds 100``. A family that ends in an error ends
alone; what is there already is not measured again, so that the same command goes on behind a crash.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.utils import is_flash_attn_2_available

from studies.gpu import device_methods
from studies.gpu.cells import Cells, difference, is_lost, short, summary
from studies.gpu.results import Deadline, OutOfTimeError, environment, read, since_start, write
from studies.gpu.told import CacheLog, Kept, ToldReference, kept_in_prefill
from tests.engine.test_keep_everything import KeepEverything
from tests.families.masked_reference import MaskedReference, placed
from tests.families.matrix import CASES, Case, answers, held_rows, pictures_noted
from tests.families.matrix import _by_picture as by_picture
from tests.families.test_untouched import state
from tests.families.zoo import FAMILIES, Sample
from tests.tiny import generate, logits
from vistrim import trim
from vistrim.engine.cache import spare_room

FIRST = (
    "llava",
    "qwen2_5_vl",
    "gemma3",
    "internvl",
    "llava_next",
    "qwen3_vl",
    "smolvlm",
    "llava_onevision",
    "mistral3",
    "paligemma",
    "glm4v",
    "deepseek_vl",
    "qwen2_vl",
    "llava-siglip",
)
"""In this order; then all others, as far as there is time."""
FLASH = "flash_attention_2"
STEPS = 4
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ALL_CASES = {name: case for cases in CASES.values() for name, case in cases.items()}
CASES_OF = {
    torch.float32: ("uniform", "pvtp", "fastv", "pyramiddrop", "vta", "st3"),
    torch.bfloat16: ("uniform", "pvtp", "st3"),
    torch.float16: ("uniform", "pvtp", "st3"),
}
EXACT = 1e-4
"""Allowed difference in float32, as a share of the largest logit."""
ROUNDING = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""The same in half precision, unless the untouched model itself differs by more from its weights in float32."""
TIMES_STOCK = 4.0
"""Allowed difference, as a multiple of the untouched model's."""


@dataclass
class Bench:
    """A family's model on the device, and its twin that the reference runs on."""

    name: str
    label: str
    model: Any
    reference: Any
    dtype: torch.dtype

    @property
    def family(self) -> Any:
        return FAMILIES[self.name]

    @property
    def samples(self) -> tuple[Sample, ...]:
        family = self.family
        return family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 5, seed=2)

    @property
    def depth(self) -> int:
        return len(self.reference_layers)

    @property
    def reference_layers(self) -> Any:
        return MaskedReference(self.family, self.reference).layers

    @property
    def has_windows(self) -> bool:
        return any(layer.is_sliding for layer in self.cache().layers)

    def cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config(decoder=True))

    def inputs(self, samples: tuple[Sample, ...]) -> dict[str, Tensor]:
        return placed(self.family.batch(samples), self.model)

    def as_type(self, dtype: torch.dtype) -> "Bench":
        """The same models with weights of another type; the reference still computes in float32."""
        return Bench(self.name, self.label, self.model.to(dtype), self.reference.to(dtype).float(), dtype)


def follow(reference: MaskedReference, answer: tuple[int, ...], sample: Sample) -> Tensor:
    """Logits of every step when the given answer is read out."""
    return torch.stack([reference.prefill(sample), *(reference.decode(token) for token in answer[:-1])])


def check_untouched(bench: Bench, cells: Cells) -> float:
    """Two runs of the untouched model, and its distance from the reference that hides nothing."""
    inputs = bench.inputs(bench.samples)
    first, again = generate(bench.model, inputs, STEPS), generate(bench.model, inputs, STEPS)
    own = max(
        difference(logits(first)[b], follow(MaskedReference(bench.family, bench.reference), answer, sample))
        for b, (answer, sample) in enumerate(zip(answers(first, inputs), bench.samples, strict=True))
    )
    same = torch.equal(logits(first), logits(again))
    cells.add(bench.label, bench.dtype, "untouched", passed=None, worst=own, repeatable=same)
    return own


def check_everything_kept(bench: Bench, cells: Cells) -> None:
    """The engine at work, and nothing cut: not a bit may change, and nothing may be left behind."""
    for label, samples in (("one", bench.samples[:1]), ("padded", bench.samples)):
        inputs = bench.inputs(samples)
        stock = generate(bench.model, inputs, STEPS)
        before = state(bench.model)
        usual = {key: value for key, value in before.items() if key[-1] != "rope_deltas"}
        with trim(bench.model, KeepEverything()) as run:
            output = generate(bench.model, inputs, STEPS)
        after = state(bench.model)
        size = sum(layer.keys.nbytes + layer.values.nbytes for layer in stock.past_key_values.layers)
        wrong = {
            "bits": not torch.equal(logits(output), logits(stock)),
            "kv_bytes": run.report.kv_bytes != size or run.report.kv_bytes_full != size,
            "left_behind": any(after.get(key) != value for key, value in usual.items()),
        }
        worst = difference(logits(output), logits(stock))
        cells.compared(bench.label, bench.dtype, f"keep-everything, {label}", worst, 0.0, wrong=_true(wrong))


def check_case(bench: Bench, label: str, stock_error: float, cells: Cells) -> None:
    """A padded batch against the masked reference: logits, kept tokens, and what the cache holds."""
    case, samples = ALL_CASES[label], bench.samples
    if bench.dtype != torch.float32 and bench.has_windows and case.method.acts_in_decode:
        # What a window has forgotten is not told apart from what was annealed.
        return
    inputs, cache = bench.inputs(samples), bench.cache()
    log = CacheLog(cache, samples, inputs["input_ids"].shape[1])
    with trim(bench.model, case.method) as run, pictures_noted() as noted:
        output = generate(bench.model, inputs, STEPS, past_key_values=cache, stopping_criteria=[log])
    report, worst, same_choice = run.report, 0.0, True
    references = []
    for b, (answer, sample) in enumerate(zip(answers(output, inputs), samples, strict=True)):
        kept = kept_in_prefill(report, b, sample, bench.depth)
        steps = [of[b] for of in log.steps[1:]] if case.method.acts_in_decode else []
        reference = _reference(bench, case, [kept, *steps], noted[b] if noted else (), _padding(bench, b))
        worst = max(worst, difference(logits(output)[b], follow(reference, answer, sample)))
        same_choice &= bench.dtype != torch.float32 or _kept_alike(reference, kept, steps)
        references.append(reference)
    wrong = {
        "kept": not same_choice,
        "held": _held_otherwise(bench, output.past_key_values.layers, references),
        "kv_bytes": report.kv_bytes != _planned_bytes(bench, output.past_key_values.layers, references),
        "device": _elsewhere(bench, output),
    }
    allowed = EXACT if bench.dtype == torch.float32 else max(ROUNDING[bench.dtype], TIMES_STOCK * stock_error)
    cells.compared(bench.label, bench.dtype, f"{label}, padded", worst, allowed, wrong=_true(wrong))


def check_padded_against_alone(bench: Bench, stock_error: float, cells: Cells) -> None:
    """Each sample of a padded batch against a batch of its own, as long as both answer alike."""
    # Without ranking, rounding cannot change which tokens stay.
    method = ALL_CASES["pvtp" if bench.dtype == torch.float32 else "uniform"].method
    inputs, worst, compared = bench.inputs(bench.samples), 0.0, 0
    with trim(bench.model, method) as run:
        together = generate(bench.model, inputs, STEPS)
        of_batch, wrong = run.report, {"kept": False}
        for b, sample in enumerate(bench.samples):
            alone_inputs = bench.inputs((sample,))
            alone = generate(bench.model, alone_inputs, STEPS)
            here, there = answers(together, inputs)[b], answers(alone, alone_inputs)[0]
            steps = 1 + next((i for i in range(STEPS - 1) if here[i] != there[i]), STEPS - 1)
            worst = max(worst, difference(logits(together)[b, :steps], logits(alone)[0, :steps]))
            compared += steps
            kept = [(stage.layer, stage.kept[0]) for stage in run.report.stages]
            wrong["kept"] |= any(kept) and kept != [(stage.layer, stage.kept[b]) for stage in of_batch.stages]
    allowed = EXACT if bench.dtype == torch.float32 else max(ROUNDING[bench.dtype], TIMES_STOCK * stock_error)
    values = {"wrong": _true(wrong), "steps": compared, "of_steps": STEPS * len(bench.samples)}
    cells.compared(bench.label, bench.dtype, f"{method.name}, padded against alone", worst, allowed, **values)


def check_memory(bench: Bench, cells: Cells) -> None:
    """What is held on the device before a trimmed generation and after it."""
    if bench.model.device.type != "cuda" or not torch.cuda.is_available():
        return
    inputs = bench.inputs(bench.samples)

    def held() -> int:
        gc.collect()
        return torch.cuda.memory_allocated()

    method = ALL_CASES["st3"].method
    with trim(bench.model, method):
        generate(bench.model, inputs, STEPS)
    before = held()
    with trim(bench.model, method):
        generate(bench.model, inputs, STEPS)
    cells.compared(bench.label, bench.dtype, "bytes held afterwards", float(abs(held() - before)), 0.0)


def _reference(bench: Bench, case: Case, told: Kept, pictures: Any, padding: int) -> MaskedReference:
    if bench.dtype != torch.float32:
        return ToldReference(bench.family, bench.reference, told=told)
    enters = None if case.choose is None else by_picture(case.choose, pictures)
    return MaskedReference(bench.family, bench.reference, case.schedule, enters, case.ahead, padding)


def _padding(bench: Bench, b: int) -> int:
    """Padding of a sample, where it counts toward a window."""
    longest = max(len(sample.ids) for sample in bench.samples)
    return (longest - len(bench.samples[b].ids)) * bench.has_windows


def _kept_alike(reference: MaskedReference, kept: list[set[int]], steps: Kept) -> bool:
    """Whether the reference has chosen the same tokens; it only keeps the last step's choice."""
    last = steps[-1] if steps else kept
    windows = [reference.window(at) for at in range(len(kept))]
    return all(w is not None or a == b for a, b, w in zip(reference.cache, last, windows, strict=True))


def _held_otherwise(bench: Bench, layers: Any, references: list[MaskedReference]) -> bool:
    longest = max(len(sample.ids) for sample in bench.samples)
    return any(
        held_rows(layer, b, longest - len(sample.ids)) != reference.held()[at]
        for at, layer in enumerate(layers)
        for b, (sample, reference) in enumerate(zip(bench.samples, references, strict=True))
    )


def _planned_bytes(bench: Bench, layers: Any, references: list[MaskedReference]) -> int:
    """Bytes of the columns that the reference's plan needs, at the bytes of one column of this model."""
    size, samples = 0, bench.samples
    longest = max(len(sample.ids) for sample in samples)
    for at, layer in enumerate(layers):
        planned = [reference.kv_lengths()[at] for reference in references]
        cut = any(n < len(s.ids) + STEPS - 1 for n, s in zip(planned, samples, strict=True))
        columns = max(planned) if cut else longest + STEPS - 1
        window = references[0].window(at)
        columns = columns if window is None else min(columns, window - 1)
        for tensor in (layer.keys, layer.values):
            size += tensor.element_size() * tensor[:, :, :1].numel() * columns
    return size


def _elsewhere(bench: Bench, output: Any) -> bool:
    """Whether a tensor of the output or of the cache is on another device than the model."""
    return any(tensor.device != bench.model.device for tensor in _tensors(output, set()))


def _tensors(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        for value in thing.values():
            yield from _tensors(value, seen)
    elif isinstance(thing, (list, tuple, set)):
        for value in thing:
            yield from _tensors(value, seen)
    elif hasattr(thing, "__dict__") and not isinstance(thing, (type, torch.nn.Module)) and not callable(thing):
        yield from _tensors(vars(thing), seen)


def _true(wrong: dict[str, bool]) -> list[str]:
    return [name for name, is_wrong in wrong.items() if is_wrong]


def check_family(name: str, device: str, cells: Cells, attention: str = "sdpa") -> None:
    """All checks of a family; one that ends in an error does not stop the others."""
    family, is_flash = FAMILIES[name], attention != "sdpa"
    model, reference = family.build(attention).to(device), family.build("eager").to(device)
    bench = Bench(name, f"{name}, {attention}" if is_flash else name, model, reference, torch.float32)
    # FlashAttention only knows half precision.
    for dtype in DTYPES[is_flash:]:
        bench = bench if dtype == torch.float32 else bench.as_type(dtype)
        do = partial(cells.guarded, bench.label, dtype)
        stock_error = do("untouched", partial(check_untouched, bench, cells))
        if stock_error is None:
            continue
        do("keep-everything", partial(check_everything_kept, bench, cells))
        for case in CASES_OF[dtype]:
            do(case, partial(check_case, bench, case, stock_error, cells))
        do("padded against alone", partial(check_padded_against_alone, bench, stock_error, cells))
        if dtype == torch.float32:
            do("bytes held afterwards", partial(check_memory, bench, cells))


def run(device: str, out: Path, seconds: float, commit: str | None, names: tuple[str, ...] | None = None) -> None:
    """Go through the families until the time is up."""
    deadline = Deadline(seconds)
    path = out / "correctness.json"
    found = read(path)
    found = found or {"environment": environment(device, commit), "families": {}, "cells": []}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # Caches of tiny models are below the size from which room is kept in them; a large model's are not.
    spare_room.WORTH_ROOM = 0
    installed = is_flash_attn_2_available()
    found["attention"] = {"sdpa": "checked", FLASH: "checked" if installed else "not installed"}
    cells = Cells(path, found, deadline)
    for name, work in _work(device, installed, cells, names):
        if name in found["families"]:
            continue
        if deadline.left < 3:
            found["families"][name] = "no time"
            continue
        found["families"][name] = "crashed"
        write(path, found)
        began = time.monotonic()
        try:
            work()
            found["families"][name] = "done"
        except OutOfTimeError:
            found["families"][name] = "no time"
        except Exception as error:
            found["families"][name] = short(error)
            if is_lost(error):
                write(path, found)
                raise
        print(f"{name}: {found['families'][name]} in {time.monotonic() - began:.1f} s", flush=True)
        write(path, found)
    write(path, found)
    print(summary(found), flush=True)


def _work(
    device: str, flash: bool, cells: Cells, names: tuple[str, ...] | None
) -> Iterator[tuple[str, Callable[[], None]]]:
    names = names or (*FIRST, *(name for name in FAMILIES if name not in FIRST))
    for i, name in enumerate(names):
        yield name, partial(check_family, name, device, cells)
        if i == 5 or (i + 1 == len(names) and i < 5):
            yield "all methods", lambda: device_methods.check(device, cells)
        if flash and i < 4:
            yield f"{name}, {FLASH}", partial(check_family, name, device, cells, FLASH)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--commit")
    parser.add_argument("--families", nargs="*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = tuple(options.families) if options.families else None
    run(options.device, options.out, since_start(options.seconds), options.commit, names)


if __name__ == "__main__":
    main()
