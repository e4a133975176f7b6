"""Hooks on modules that get the arguments of the call by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from vistrim.engine.forward import Call


def before(module: nn.Module, hook: Callable[[Call], Any]) -> RemovableHandle:
    """Run a hook before a module; what it changes in the arguments counts."""
    # The class's own signature: wrappers around an instance's forward may hide it.
    signature = inspect.signature(type(module).forward)

    def pre_hook(module: nn.Module, args: tuple[Any, ...], kwargs: Call) -> tuple[tuple[()], Call]:
        call = dict(kwargs)
        if args:
            call = dict(signature.bind(module, *args, **kwargs).arguments)
            del call["self"]
            call |= call.pop("kwargs", {})
        hook(call)
        return (), call

    return module.register_forward_pre_hook(pre_hook, with_kwargs=True)


def after(module: nn.Module, hook: Callable[[Any], Any]) -> RemovableHandle:
    """Run a hook on a module's output, or on None where it has failed; what the hook returns replaces the output."""

    def post_hook(module: nn.Module, args: tuple[Any, ...], kwargs: Call, output: Any) -> Any:
        return hook(output)

    return module.register_forward_hook(post_hook, with_kwargs=True, always_call=True)
