"""Supported releases of transformers, and the check of the installed one. Does not import transformers."""

import re
import sys
from importlib import metadata

from vistrim.errors import UnsupportedReleaseError

OLDEST, NEWEST = (5, 23), (5, 24)
"""First and last minor release that the test suite runs with. pyproject.toml declares the same range."""
REQUIREMENT = f"transformers>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"


def release(version: str) -> tuple[int, int]:
    """Return the major and minor number of a version. Development versions count as the release they precede."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def installed() -> str:
    """Return the version of transformers, from the module if it is imported, otherwise from its metadata."""
    module = sys.modules.get("transformers")
    if module is not None:
        return str(module.__version__)
    try:
        return metadata.version("transformers")
    # A source checkout on the path has no metadata.
    except metadata.PackageNotFoundError:
        import transformers

        return str(transformers.__version__)


def check_release() -> None:
    """Refuse a transformers release with which vistrim was not tested.

    Raises
    ------
    UnsupportedReleaseError
        If it was not tested. The message names the tested versions and the fix.
    """
    there = installed()
    if not OLDEST <= release(there) <= NEWEST:
        raise UnsupportedReleaseError(
            f"transformers {there} is installed, and this version of vistrim was tested with "
            f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} only: pip install '{REQUIREMENT}'"
        )
