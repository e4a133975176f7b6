"""Predictors for tests of a cluster. They have no model, so that their processes start within a second."""

import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from vistrim.batching.predictor import Predictor
from vistrim.errors import LoadError
from vistrim.evaluation.records import Answer

MISSING = "missing"
KILLED, POISON = "what is w21", "what is w24"


@dataclass
class Repeating(Predictor):
    """Answers with its method, the question, and what it is shown."""

    def load(self):
        if self.model == MISSING:
            raise LoadError(f"{MISSING!r} has no config: check the path")

    def identity(self):
        self.load()
        return {"weights": self.model, "resolved": self.method, "files": ""}

    def __call__(self, batch):
        empty = [None] * len(batch["id"])
        shown = zip(batch.get("image", empty), batch.get("video", empty), strict=True)
        answers = [
            Answer(
                answer=f"{self.method}, {prompt}, images {images}, video {frames}",
                new_tokens=4,
                ended=True,
                prompt_tokens=20,
                visual_tokens=16,
                average_tokens=8.0,
                prefill_flops=50,
                prefill_flops_full=100,
                method_flops=0,
                vision_flops=None,
                kv_mean=0.5,
                kv_bytes_peak=64.0,
                kv_bytes_full=128,
                exited=False,
            )
            for prompt, (images, frames) in zip(batch["prompt"], shown, strict=True)
        ]
        results = [asdict(answer) | {"vision_flops": float("nan"), "seconds": 0.1, "error": ""} for answer in answers]
        return {name: batch[name] for name in ("id", "prompt")} | {
            name: [row[name] for row in results] for name in results[0]
        }


@dataclass
class Fragile(Repeating):
    """Its process is killed by one row once, and dies of another each time."""

    killed: str = ""

    def __call__(self, batch):
        if KILLED in batch["prompt"] and not Path(self.killed).exists():
            Path(self.killed).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if POISON in batch["prompt"]:
            os._exit(1)
        return super().__call__(batch)
