"""Made-up records."""

from typing import Any

from vistrim._utils.labels import UNTOUCHED
from vistrim.evaluation.records import Failure, Sample


def sample(item: str, method: str = UNTOUCHED, **changed: Any) -> Sample:
    values: dict[str, Any] = {
        "method": method,
        "item": item,
        "task": "color",
        "prompt": "What color?",
        "right": "red",
        "answer": "red",
        "score": 1.0,
        "new_tokens": 2,
        "ended": True,
        "prompt_tokens": 20,
        "visual_tokens": 16,
        "average_tokens": 16.0,
        "prefill_flops": 100.0,
        "prefill_flops_full": 100.0,
        "method_flops": 0.0,
        "vision_flops": 20.0,
        "kv_mean": 1.0,
        "kv_bytes_peak": 50.0,
        "kv_bytes_full": 50.0,
    }
    return Sample(**(values | changed))


def failure(item: str, method: str = UNTOUCHED) -> Failure:
    return Failure(method, item, "color", "OSError: no such image")
