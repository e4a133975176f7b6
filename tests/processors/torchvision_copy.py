"""A copy of torchvision beside the environment, whose compiled part need not fit the installed torch.

Many of transformers' processors import torchvision, for its functions in Python alone. Its compiled operators are built
for one build of torch, and fail to load beside another, such as the CPU's. So `make` puts a copy into
``build/torchvision``, which is found by those tests that ask for it and by nothing else, and the two operators that its
import looks up are declared here.
"""

import importlib.util
import os
from pathlib import Path

import torch

COPY = Path(__file__).parents[2] / "build" / "torchvision"
"""With the pure-Python packages that some processors need beside it."""
OPERATORS = ("nms", "qnms")


def missing() -> str | None:
    """Why processors that need torchvision cannot be tried."""
    if importlib.util.find_spec("torchvision") is not None or (COPY / "torchvision").is_dir():
        return None
    return f"torchvision is not installed, and there is no copy of it: make {COPY.relative_to(COPY.parents[1])}"


def environment(needed: bool) -> dict[str, str]:
    """Variables of a process that finds the copy if it is needed, and if torchvision is not installed."""
    copied = needed and importlib.util.find_spec("torchvision") is None
    paths = [str(COPY)] * copied + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def declare_operators() -> torch.library.Library | None:
    """Declare what torchvision's import looks up, if it is the copy that will be found.

    Returns
    -------
    Library or None
        To be kept: the operators go with it.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or COPY not in Path(found.origin).parents:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
