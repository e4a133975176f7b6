"""What a model carries beside its weights, and the weights as they lie in memory: to see that nothing has changed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

State = dict[tuple[str, str], Any]
"""For a module and what it has: something that is equal as long as that is the same."""

_HELD_ELSEWHERE = ("_parameters", "_buffers", "_modules")


def state_of(model: nn.Module) -> State:
    """Everything that trimming could leave behind: hooks, shadowed methods, classes, configs, kernels, weights."""
    found: State = {}
    for name, module in model.named_modules():
        found[name, "class"] = type(module)
        for key, value in vars(module).items():
            if key not in _HELD_ELSEWHERE:
                found[name, key] = dict(value) if "hooks" in key and isinstance(value, dict) else id(value)
        config = getattr(module, "config", None)
        found[name, "attention kernel"] = getattr(config, "_attn_implementation", None)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found[name, "values"] = _values(tensor)
    config = getattr(model, "config", None)
    found["", "settings"] = config.to_json_string() if config is not None else None
    return found


def changes(before: State, after: State) -> list[str]:
    """Names of what is no longer the same."""
    keys = [*before, *(key for key in after if key not in before)]
    return [f"{name or 'model'}: {what}" for name, what in keys if not _same(before, after, (name, what))]


def _same(before: State, after: State, key: tuple[str, str]) -> bool:
    return key in before and key in after and bool(before[key] == after[key])


def _values(tensor: Tensor) -> tuple[int, int, int]:
    """Which tensor it is, where its values lie, and how often they have been written to."""
    # Tensors of inference mode do not count.
    return id(tensor), tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
