"""Small versions of the named shapes."""

from typing import Any

from vistrim.benchmark.subject import Wanted

VISUAL = {
    "llava-1.5-7b": 576,
    "llava-1.5-13b": 576,
    "llava-next-7b": 2928,
    "qwen2.5-vl-7b": 999,
    "internvl3-8b": 256,
    "smolvlm-2b": 162,
}
"""Few visual tokens that each can be shown."""


def small(name: str = "llava-1.5-7b", **changes: Any) -> Wanted:
    """Two layers, 64 wide."""
    options = {"layers": 2, "hidden": 64, "visual_tokens": VISUAL[name], "text_tokens": 20, "device": "cpu"}
    return Wanted(name, **(options | changes))
