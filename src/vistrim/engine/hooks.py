"""Hooks and replaced methods on the modules of a model, all of which can be removed."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from vistrim.engine.releases import with_cache_renamed
from vistrim.errors import UnsupportedModelError

Call = dict[str, Any]
"""Arguments of a call, by name."""


class NotCopied:
    """Base class of objects installed on a model that must not be copied or saved with it."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UnsupportedModelError(
            "a model that is being trimmed cannot be copied, pickled or saved whole: detach it first"
        )


class Installed(NotCopied):
    """A function installed on a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def before(module: nn.Module, hook: Callable[[Call], Any]) -> RemovableHandle:
    """Run a hook before a module, with the arguments by name. Its changes to them take effect."""
    # The class's own signature: wrappers around an instance's forward may hide it.
    signature = inspect.signature(type(module).forward)

    def pre_hook(module: nn.Module, args: tuple[Any, ...], kwargs: Call) -> tuple[tuple[()], Call]:
        call = with_cache_renamed(kwargs)
        if args:
            call = dict(signature.bind(module, *args, **call).arguments)
            del call["self"]
            call |= call.pop("kwargs", {})
        hook(call)
        return (), call

    return module.register_forward_pre_hook(Installed(pre_hook), with_kwargs=True)


def after(module: nn.Module, hook: Callable[[Any], Any]) -> RemovableHandle:
    """Run a hook on the output of a module, or on None if it failed. A returned value replaces the output."""

    def post_hook(module: nn.Module, args: tuple[Any, ...], kwargs: Call, output: Any) -> Any:
        return hook(output)

    return module.register_forward_hook(Installed(post_hook), with_kwargs=True, always_call=True)


class Hooks:
    """Hooks and methods installed on a model, and their removal."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def remove(self) -> None:
        """Remove everything, in reverse order."""
        while self._undo:
            self._undo.pop()()

    def undo_with(self, function: Callable[[], None]) -> None:
        """Register a function that undoes an installation."""
        self._undo.append(function)

    def keep(self, handle: RemovableHandle) -> None:
        """Register the handle of a hook."""
        self._undo.append(handle.remove)

    def around(self, module: nn.Module, first: Callable[[Call], Any], last: Callable[[Any], Any]) -> None:
        """Run one hook before a module, and one after it even if it fails; see `before` and `after`."""
        self.keep(before(module, first))
        self.keep(after(module, last))

    def shadow(self, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
        """Replace a method of a module on the instance."""
        own = vars(module)
        if name in own:
            self._undo.append(functools.partial(own.__setitem__, name, own[name]))
        else:
            self._undo.append(functools.partial(own.__delitem__, name))
        own[name] = Installed(function)
