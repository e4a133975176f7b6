"""Processes of one training that share the work of each step, started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import distributed


class Processes:
    """All processes make the same batches and steps; each part of a batch is processed by the one that is free first.

    A process that is slowed down by other programs takes fewer parts, whereas threads wait for the slowest of them in
    every operation. Without ``torchrun`` there is this process alone.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            store, self.rank, self.size = next(iter(distributed.rendezvous("env://")))
            distributed.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size)
            self._claims = distributed.PrefixStore("claims", store)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, step: int, parts: int) -> Iterator[int]:
        """Numbers of the parts of a step that this process takes, one at a time."""
        if self.size == 1:
            yield from range(parts)
            return
        while (part := self._claims.add(str(step), 1) - 1) < parts:
            yield part

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree(self, value: float) -> float:
        """Return the first process's value."""
        shared = torch.tensor([value], dtype=torch.float64)
        if self.size > 1:
            distributed.broadcast(shared, 0)
        return shared.item()


def sum_gradients(processes: Processes, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add the gradients of all processes. A parameter without gradient counts as zero."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    processes.sum(gradients)
