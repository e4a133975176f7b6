"""A page for each notebook, with its outputs."""

import json
from typing import Any

from docs.site.pages import ROOT


def pages() -> dict[str, str]:
    """The pages, by the paths of the notebooks."""
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return {path.relative_to(ROOT).as_posix(): _page(json.loads(path.read_text(encoding="utf-8"))) for path in found}


def _page(notebook: dict[str, Any]) -> str:
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += map(_shown, cell.get("outputs", ()))
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    """A picture, or else the text of an output."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Output](data:image/png;base64,{''.join(data['image/png'].split())})"
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```"
