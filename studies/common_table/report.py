"""Text of the results."""
import json
from typing import Any


def as_json(content: dict[str, Any]) -> str:
    """JSON with one row or figure per line."""
    parts = []
    for name, value in content.items():
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"    {json.dumps(one)}" for one in value) + "\n  ]"
        elif isinstance(value, dict):
            text = "{\n" + ",\n".join(f"    {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items()) + "\n  }"
        else:
            text = json.dumps(value)
        parts.append(f"  {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write(folder):
    pass


def write_docs(folder):
    pass
