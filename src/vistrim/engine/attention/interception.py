"""Interception of the attention interface: reads queries and keys, and replaces the kernel on request.

Attention modules look up their kernel by ``self.config._attn_implementation`` at every call. While a model is trimmed,
the ``config`` of each attention module is a proxy. It returns the name of our kernel in the thread and layer that
requested scores or a different kernel, and the original name otherwise. If only scores are requested, the original
kernel still computes the attention.
"""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vistrim.core.scores import Softmax
from vistrim.engine.attention.flash import kernel_for, looks_back, refuse_packed_pictures
from vistrim.engine.hooks import NotCopied

_NAME = "vistrim"

AttentionReader = Callable[[Tensor, Tensor, Tensor | None, Softmax], None]
"""Receives query ``[batch, heads, rows, head_dim]`` and key ``[batch, kv_heads, columns, head_dim]`` after RoPE, the
mask and the softmax parameters of the layer."""

ValueReader = Callable[[Tensor, Tensor, Tensor, Tensor | None, Softmax], None]
"""As `AttentionReader`, with the values ``[batch, kv_heads, columns, head_dim]`` behind the key."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]
"""Receives query, key, value ``[batch, kv_heads, columns, head_dim]``, mask, scaling and dropout; returns the output
``[batch, rows, heads, head_dim]``."""


@dataclass(frozen=True)
class Interception:
    """Actions at one call of an attention module.

    Attributes
    ----------
    read : AttentionReader or None
        Called after the attention.
    kernel : Kernel or None
        Computes the attention. None: the kernel of the module.
    read_before : AttentionReader or None
        Called before the attention.
    drops_positions : bool
        Whether positions are not passed to the kernel. FlashAttention would interpret the gaps of removed tokens as
        borders of packed sequences.
    read_values : ValueReader or None
        Who wants to read values, too.
    """

    read: AttentionReader | None = None
    kernel: Kernel | None = None
    read_before: AttentionReader | None = None
    drops_positions: bool = False
    read_values: ValueReader | None = None


class InterceptingConfig(NotCopied):
    """Proxy of the ``config`` of one attention module."""

    def __init__(self, real: Any, find: Callable[[], Interception | None]) -> None:
        self.vistrim_real = real
        self.vistrim_find = find

    @property
    def _attn_implementation(self) -> str:
        # FlashAttention reads its name again while it runs.
        intercepted = _running.config is not self and self.vistrim_find() is not None
        return _NAME if intercepted else self.vistrim_real._attn_implementation

    def __getattr__(self, name: str) -> Any:
        if name == "vistrim_real":
            # copy and pickle read it before there is any state.
            raise AttributeError(name)
        return getattr(self.vistrim_real, name)


class _Running(threading.local):
    """The proxy of the module whose original kernel this thread is running."""

    config: InterceptingConfig | None = None


_running = _Running()


def install(attention: nn.Module, find: Callable[[], Interception | None]) -> None:
    """Install the proxy in an attention module.

    Parameters
    ----------
    attention : nn.Module
        A module with a ``config`` that calls the attention interface.
    find : callable
        Called at every forward pass of the module, in its thread. Returns the interception, or None.
    """
    attention.config = InterceptingConfig(attention.config, find)  # type: ignore[assignment]


def is_installed(attention: nn.Module) -> bool:
    """Whether the config of the module is a proxy."""
    return isinstance(attention.config, InterceptingConfig)


def remove(attention: nn.Module) -> None:
    """Restore the config of the module."""
    attention.config = attention.config.vistrim_real  # type: ignore[union-attr]


def _intercepted_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    config: Any = module.config
    found = config.vistrim_find()
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    softmax = Softmax(scaling, kwargs.get("softcap"), kwargs.get("s_aux"))
    if found.drops_positions:
        kwargs.pop("position_ids", None)
    shown = attention_mask
    if attention_mask is not None and attention_mask.dim() == 2 and not looks_back(module):
        shown = attention_mask[:, None, None]
    if found.read_before is not None:
        found.read_before(query.detach(), key.detach(), shown, softmax)
    if found.kernel is not None:
        dropout = kwargs.get("dropout", 0.0)
        output = found.kernel(query, key, value, attention_mask, scaling, dropout), None
    else:
        output = _own_kernel(module, query, key, value, attention_mask, softmax, kwargs)
    if found.read is not None or found.read_values is not None:
        refuse_packed_pictures(config.vistrim_real._attn_implementation, kwargs)
    if found.read is not None:
        found.read(query.detach(), key.detach(), shown, softmax)
    if found.read_values is not None:
        found.read_values(query.detach(), key.detach(), value.detach(), shown, softmax)
    return output


def _own_kernel(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softmax: Softmax,
    arguments: dict[str, Any],
) -> Any:
    config = module.config
    # Each modeling file has its own eager kernel, which is not in the registry.
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    name = kernel_for(config.vistrim_real._attn_implementation, mask, softmax)
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    _running.config = config
    try:
        return kernel(module, query, key, value, mask, **arguments)
    finally:
        _running.config = None


ALL_ATTENTION_FUNCTIONS.register(_NAME, _intercepted_attention)
