"""Results of a study."""

import argparse
import json
from pathlib import Path
from typing import Any

from vistrim._utils.environment import stamp


def record(options: argparse.Namespace, **found: Any) -> dict[str, Any]:
    """Findings with environment and settings; also written to ``options.out``, where that is given."""
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    result = {"environment": stamp(), "settings": settings, **found}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result
