"""A tap for queries and keys at the attention interface.

Attention modules look their kernel up by ``self.config._attn_implementation`` at every call. While a model is trimmed,
each attention module's ``config`` is a stand-in that answers with our name in the one thread and for the one layer that
asked for scores, and with the true name everywhere else. The true kernel still does the attention.
"""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_NAME = "vistrim_tap"

TapReader = Callable[[Tensor, Tensor, Tensor | None, float], None]
"""Receives query ``[batch, heads, rows, head_dim]`` and key ``[batch, kv_heads, columns, head_dim]`` after RoPE, the
layer's mask and the scaling of the logits."""


class TapConfig:
    """Stands in for the ``config`` of one attention module."""

    def __init__(self, real: Any, reader: Callable[[], TapReader | None]) -> None:
        self.vistrim_real = real
        self.vistrim_reader = reader

    @property
    def _attn_implementation(self) -> str:
        return _NAME if self.vistrim_reader() is not None else self.vistrim_real._attn_implementation

    def __getattr__(self, name: str) -> Any:
        if name == "vistrim_real":
            # Asked for by copy and pickle before there is any state.
            raise AttributeError(name)
        return getattr(self.vistrim_real, name)


def install(attention: nn.Module, reader: Callable[[], TapReader | None]) -> None:
    """Put the stand-in into an attention module.

    Parameters
    ----------
    attention : nn.Module
        A module with a ``config`` that calls the attention interface.
    reader : callable
        Called at every forward pass of the module, in its thread: returns who wants to read, or None.
    """
    attention.config = TapConfig(attention.config, reader)  # type: ignore[assignment]


def is_installed(attention: nn.Module) -> bool:
    """Whether the module's config is a stand-in."""
    return isinstance(attention.config, TapConfig)


def remove(attention: nn.Module) -> None:
    """Give the module its own config back."""
    attention.config = attention.config.vistrim_real  # type: ignore[union-attr]


def _tapped_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    config: Any = module.config
    read = config.vistrim_reader()
    kernel_name = config.vistrim_real._attn_implementation
    # Each modeling file has an eager kernel of its own, which is not in the registry.
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(kernel_name, eager)
    output = kernel(module, query, key, value, attention_mask, **kwargs)
    read(query.detach(), key.detach(), attention_mask, kwargs["scaling"])
    return output


ALL_ATTENTION_FUNCTIONS.register(_NAME, _tapped_attention)
