"""A tiny subject, runs and costs made by hand, and a clock that only moves when it is told to."""

from typing import Any

import torch

from tests import tiny
from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.results import Cost, Run
from vistrim.benchmark.subject import Subject

BATCH = 2


def subject(model: Any = None, sample: tiny.Sample | None = None, **settings: Any) -> Subject:
    model, sample = model or tiny.shared(), sample or tiny.sample(2, 9)
    inputs = tiny.batch([sample] * BATCH)
    return Subject(
        model=model,
        inputs=inputs | {"pixel_values": inputs["pixel_values"].to(model.dtype)},
        visual_tokens=sample.visual,
        text_tokens=sample.text,
        weight_bytes=sum(p.nbytes for p in model.get_decoder().layers.parameters()),
        settings={"model": "tiny", **settings},
    )


def run(method: str, number: int, encode: float, first: float, steps: list[float], **more: Any) -> Run:
    return Run(
        method, number, encode, first, **({"select_seconds": 0.0, "peak_bytes": None} | more), step_seconds=steps
    )


def cost(notation: str = UNTOUCHED, flops: float = 100.0, kv: tuple[int, ...] = (10, 12, 14), weights: int = 7) -> Cost:
    return Cost(notation, 16.0, flops, list(kv), weights, 0)


class Ticks:
    """A clock for `time_generation`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.read: list[float] = []

    def __call__(self, *devices: torch.device) -> float:
        self.read.append(self.now)
        return self.now

    def passes(self, seconds: float):
        """A hook before a module that takes so long."""

        def hook(*_: Any) -> None:
            self.now += seconds

        return hook


def traces(model: Any) -> dict[str, tuple[list[str], int]]:
    """State of each module: names on the instance, and the number of hooks."""
    return {
        name: (sorted(vars(module)), len(module._forward_hooks) + len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }
