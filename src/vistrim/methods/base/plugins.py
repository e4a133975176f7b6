"""Methods of other distributions: modules under the entry-point group ``vistrim.methods``."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "vistrim.methods"

_loaded: set[EntryPoint] = set()


class NameTakenError(ValueError):
    """Two methods have one name."""


@cache
def found() -> tuple[EntryPoint, ...]:
    """The entry points that are installed."""
    return tuple(entry_points(group=GROUP))


def distribution_of(module: str) -> str:
    """The distribution that a module belongs to, or else the module's name."""
    root = module.partition(".")[0]
    if root == "vistrim":
        return root
    for point in found():
        if point.dist is not None and point.module.partition(".")[0] == root:
            return point.dist.name
    return module


def load_plugins() -> None:
    """Import the modules of other distributions that were not imported yet; one that fails is left out, with a warning.

    Raises
    ------
    NameTakenError
        If a method in one of them has a name that another method has.
    """
    for point in found():
        if point in _loaded:
            continue
        try:
            point.load()
        except NameTakenError:
            raise
        # Whatever goes wrong in it is no fault of the methods that were asked for.
        except Exception as error:
            name = "?" if point.dist is None else point.dist.name
            reason = " ".join(str(error).split())
            warnings.warn(
                f"the methods of the distribution {name} ({point.value}) are left out, as their module cannot be "
                f"imported ({type(error).__name__}: {reason}): upgrade or uninstall {name}",
                RuntimeWarning,
                stacklevel=4,
            )
        _loaded.add(point)
