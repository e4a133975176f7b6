"""vistrim: the untouched model, and one side per method."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

import vistrim
from studies.peers.workers.common import Side, arguments, generating, serve


def trimmed(model: Any, method: str, side: Side) -> Callable[[int], Any]:
    """Run a side with a trimmed model."""

    def run(tokens: int) -> Any:
        with vistrim.trim(model, method):
            return side(tokens)

    return run


if __name__ == "__main__":
    options = arguments()
    model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=torch.float32).eval()
    untouched = generating(model, torch.load(options.model / "inputs.pt", weights_only=True))
    methods = {method: trimmed(model, method, untouched) for method in options.settings["methods"]}
    serve(options, {"untouched": untouched, **methods})
