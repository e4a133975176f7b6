"""Lets torchvision be imported beside a CPU build of torch, for which its binary does not fit.

Python imports this module at the start of every process of the environment in which it lies.
"""

import sys
from importlib.abc import MetaPathFinder

LIBRARIES = []
OPERATORS = ("nms", "qnms")


class Torchvision(MetaPathFinder):
    """Defines the operators that torchvision registers at import, the first time that it is imported."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing: the module itself is found as ever."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            # It may not be freed as long as the operators are in use.
            library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            LIBRARIES.append(library)


sys.meta_path.insert(0, Torchvision())
