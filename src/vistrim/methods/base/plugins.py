"""Methods of other packages, found through the entry-point group ``vistrim.methods``."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points

GROUP = "vistrim.methods"
"""Name of the entry-point group."""

_loaded: set[EntryPoint] = set()


class NameTakenError(ValueError):
    """A method has the name of another method."""


@cache
def found() -> tuple[EntryPoint, ...]:
    """List the installed entry points of the group.

    Returns
    -------
    tuple of EntryPoint
        The entry points, in no particular order.
    """
    return tuple(entry_points(group=GROUP))


def distribution_of(module: str) -> str:
    """Find the distribution that a module belongs to.

    Parameters
    ----------
    module : str
        Full name of the module.

    Returns
    -------
    str
        Name of the distribution that has an entry point in the same top-level package. If there is none, the name of
        the module.
    """
    root = module.partition(".")[0]
    if root == "vistrim":
        return root
    for point in found():
        if point.dist is not None and point.module.partition(".")[0] == root:
            return point.dist.name
    return module


def load_plugins() -> None:
    """Import the modules of other distributions, which register their methods.

    Each module is imported only once. If an import fails, the methods of this module are left out, with a
    `RuntimeWarning`.

    Raises
    ------
    NameTakenError
        If a method has the name of another method.
    """
    for point in found():
        if point in _loaded:
            continue
        try:
            point.load()
        except NameTakenError:
            raise
        # An import can raise anything, and a broken package must not make all other methods unavailable.
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
