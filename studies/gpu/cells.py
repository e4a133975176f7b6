"""The table of checks: cells by family, number type and check."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studies.gpu.results import Deadline, OutOfTimeError, write


class Cells:
    """The table, one cell after another."""

    def __init__(self, path: Path, found: dict[str, Any], deadline: Deadline) -> None:
        self._path, self._found, self._deadline = path, found, deadline

    def add(self, family: str, dtype: torch.dtype, check: str, **values: Any) -> None:
        cell = {"family": family, "dtype": str(dtype).removeprefix("torch."), "check": check, **values}
        self._found["cells"].append(cell)
        write(self._path, self._found)

    def compared(self, family: str, dtype: torch.dtype, check: str, worst: float, allowed: float, **more: Any) -> None:
        # NaN is never within what is allowed.
        passed = bool(worst <= allowed) and not any(more.get("wrong", ()))
        self.add(family, dtype, check, passed=passed, worst=worst, allowed=allowed, **more)

    def guarded(self, family: str, dtype: torch.dtype, check: str, work: Callable[[], Any]) -> Any:
        """Do a check; one that ends in an error gives a cell and None, unless the device is lost by it."""
        if self._deadline.left < 0:
            raise OutOfTimeError
        try:
            return work()
        except Exception as error:
            if is_lost(error):
                raise
            where = "".join(traceback.format_exception(error)[-4:])[-1500:]
            self.add(family, dtype, check, passed=False, error=short(error), where=where)
            return None


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest expected logit."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).abs().max() / expected.abs().max())


def is_lost(error: BaseException) -> bool:
    """Whether the device can no longer be used by this process."""
    return "device-side assert" in str(error) or "illegal memory access" in str(error)


def short(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def summary(found: dict[str, Any]) -> str:
    """What was checked, what was worst in each number type, and what is wrong."""
    cells = found["cells"]
    lines = []
    for dtype in dict.fromkeys(cell["dtype"] for cell in cells):
        own = [cell for cell in cells if cell["dtype"] == dtype and cell["passed"] is not None]
        families = {cell["family"] for cell in own}
        good = sum(cell["passed"] for cell in own)
        worst = max((cell.get("worst", 0.0) for cell in own), default=0.0)
        lines.append(f"{dtype}: {good} of {len(own)} checks of {len(families)} families passed, worst {worst:.2e}")
    for cell in cells:
        if cell["passed"] is False:
            why = cell.get("error") or f"worst {cell['worst']:.2e} of {cell['allowed']:.2e}, wrong {cell.get('wrong')}"
            lines.append(f"FAILED {cell['family']} {cell['dtype']} {cell['check']}: {why}")
    return "\n".join(lines)
