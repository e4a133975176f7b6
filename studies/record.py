"""Results of a study."""

import argparse
import json
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp

ROOT = Path(__file__).resolve().parents[1]


def record(options: argparse.Namespace, **found: Any) -> dict[str, Any]:
    """Findings with environment and settings; also written to ``options.out``, where that is given."""
    settings = {key: portable(value) for key, value in vars(options).items()}
    result = {"environment": stamp(), "settings": settings, **found}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def portable(setting: Any) -> Any:
    """A setting without folders of this machine.

    A path in the repository becomes relative to its root, and of another absolute path, the name remains.
    """
    if isinstance(setting, (list, tuple)):
        return [portable(part) for part in setting]
    if not isinstance(setting, (str, Path)):
        return setting
    if not Path(setting).is_absolute():
        return str(setting)
    where = Path(setting).resolve()
    return where.relative_to(ROOT).as_posix() if where.is_relative_to(ROOT) else where.name
