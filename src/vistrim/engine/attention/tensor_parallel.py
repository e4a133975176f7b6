"""Tensor parallelism: each process has some of the attention heads, but all must select the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vistrim.architectures import ModelSpec
from vistrim.core.scores import AttentionRows
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.method import Method

BESIDE = {"pp_size": "pipeline parallelism", "ep_size": "expert parallelism", "dp_size": "FSDP"}
"""Sizes in a ``DistributedConfig`` that must be 1."""


@dataclass(frozen=True)
class SharedRows(AttentionRows):
    """Query rows of a layer whose heads are distributed over processes.

    Attributes
    ----------
    group : ProcessGroup
        The processes that share the heads.
    """

    group: Any = None

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Gather the attention weights of the heads of all processes, one block of rows at a time (synchronizes)."""
        for weights, places in super().blocks():
            parts = [torch.empty_like(weights) for _ in range(dist.get_world_size(self.group))]
            dist.all_gather(parts, weights.contiguous(), group=self.group)
            yield torch.cat(parts, 1), places


def find_group(model: Any) -> Any:
    """Find the processes that share the heads of a model, or None if the model is not distributed.

    Raises
    ------
    UnsupportedModelError
        If the model is distributed in a different way.
    """
    config = getattr(model.config, "distributed_config", None)
    if model._device_mesh is None or config is None:
        if is_sharded(model):
            raise UnsupportedModelError(
                "this model was sharded manually, so vistrim does not know which process has which heads: load it with "
                "from_pretrained(..., distributed_config=DistributedConfig(tp_size=...))"
            )
        return None
    for name, way in BESIDE.items():
        if getattr(config, name) > 1:
            raise UnsupportedModelError(
                f"vistrim does not support {way}: load the model with only DistributedConfig(tp_size=...)"
            )
    return model._device_mesh["tp"].get_group() if config.tp_size > 1 else None


def check_shared(method: Method, spec: ModelSpec) -> None:
    """Refuse a fitted method that does not support tensor parallelism.

    Raises
    ------
    UnsupportedModelError
        If it is not supported. The message names an alternative.
    """
    cannot = None
    if method.structure(spec.facts) is not None:
        cannot = "cuts inside the layers, whose weights are distributed over processes"
    elif method.ranks_by == "guide":
        cannot = "uses a guide model"
    elif method.reads_vision and spec.images.tower is not None and any(map(is_sharded, spec.images.tower.attentions)):
        cannot = "reads the vision tower, whose heads are distributed over processes"
    if cannot is not None:
        raise UnsupportedModelError(
            f"{method.name} {cannot}, which vistrim does not support under tensor parallelism: load the model with "
            "device_map='auto' instead, or use a method such as fastv"
        )


def is_sharded(module: nn.Module) -> bool:
    """Whether some weights of the module are distributed over processes."""
    return any(hasattr(parameter, "placements") for parameter in module.parameters())
