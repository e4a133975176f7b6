"""One stage of a training: steps, learning rate, checkpoint and log."""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from training.reference.optimizer import build_optimizers

WARMUP = 20
LOG_EVERY = 10

Parts = Mapping[str, nn.Module | nn.Parameter]


class Run(ABC):
    """A stage, in which some parts of a module are trained for some steps.

    Batches depend only on the step, so an interrupted stage ends with the same weights as an uninterrupted one.

    Parameters
    ----------
    name : str
        Name in the log.
    steps : int
        Optimizer steps.
    lr : float
        Peak learning rate: short warm-up, then constant, then linear decay over the last third.
    module : nn.Module
        The whole module.
    parts : mapping
        The trained parts, by their prefix in the state dict of the module. The rest is frozen.
    path : Path
        The checkpoint.
    """

    def __init__(self, name: str, steps: int, lr: float, module: nn.Module, parts: Parts, path: Path) -> None:
        self.name = name
        self.steps = steps
        self.lr = lr
        self.module = module
        self.parts = parts
        self.path = path
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        for part in parts.values():
            part.requires_grad_(True)
        self.optimizers = build_optimizers(module, lr)
        self.step = 0

    @abstractmethod
    def loss(self, device: torch.device) -> tuple[torch.Tensor, dict[str, float]]:
        """Compute the loss of the current step and the values to log."""

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if self.path.exists():
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            self.module.load_state_dict(saved["weights"], strict=False)
            self.step = saved["step"]
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        weights = {
            name: value for name, value in self.module.state_dict().items() if name.startswith(tuple(self.parts))
        }
        partial = self.path.with_suffix(".partial")
        torch.save(
            {"weights": weights, "step": self.step, "optimizers": [o.state_dict() for o in self.optimizers]}, partial
        )
        os.replace(partial, self.path)

    def advance(self, device: torch.device) -> dict[str, float]:
        """Take one optimizer step and return the values to log."""
        loss, logged = self.loss(device)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in self.module.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        return {"loss": loss.item()} | logged

    def learning_rate(self) -> float:
        """Learning rate of the current step."""
        warmup = min(1.0, (self.step + 1) / WARMUP)
        decay = min(1.0, 3 * (self.steps - self.step) / self.steps)
        return self.lr * min(warmup, decay)

    def to_end(self, device: torch.device, log: Path, save_every: int, progress: Progress) -> Iterator[int]:
        """Train to the end. Yields the step after every checkpoint, and once if there is nothing left to do."""
        if self.step >= self.steps:
            yield self.step
        bar = progress.add_task(self.name, total=self.steps, completed=self.step)
        sums: dict[str, list[float]] = defaultdict(list)
        started = time.perf_counter()
        while self.step < self.steps:
            for name, value in self.advance(device).items():
                sums[name].append(value)
            progress.update(bar, completed=self.step)
            if self.step % LOG_EVERY == 0 or self.step == self.steps:
                means = {name: round(sum(values) / len(values), 4) for name, values in sums.items()}
                self.note(log, means | {"seconds": round(time.perf_counter() - started, 1)})
                sums.clear()
            if self.step % save_every == 0 or self.step == self.steps:
                self.save()
                yield self.step

    def note(self, log: Path, entry: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with log.open("a") as file:
            file.write(json.dumps({"stage": self.name, "step": self.step, **entry}) + "\n")
