"""kvpress on the language model alone: SnapKV after prefill, and a press while decoding."""

from contextlib import nullcontext
from typing import Any

import torch
from kvpress import DecodingPress, KnormPress, SnapKVPress
from transformers import AutoModelForCausalLM, DynamicCache

from studies.peers.workers.common import Side, arguments, serve


def pressed(model: Any, ids: torch.Tensor, press: Any) -> Side:
    """Decode greedily as kvpress' own pipeline does, at the positions of the full prompt."""

    def side(tokens: int) -> Any:
        cache = DynamicCache()
        with press(model) if press is not None else nullcontext():
            logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
            for number in range(tokens - 1):
                position = torch.full((len(ids), 1), ids.shape[1] + number)
                token = logits[:, -1:].argmax(-1)
                logits = model(token, past_key_values=cache, position_ids=position).logits
        return cache

    return side


if __name__ == "__main__":
    options = arguments()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    ids = torch.load(options.model / "inputs.pt", weights_only=True)["input_ids"]
    held, interval = options.settings["held"], options.settings["interval"]
    decoding = DecodingPress(KnormPress(), compression_interval=interval, target_size=held)
    serve(
        options,
        {
            "untouched": pressed(model, ids, None),
            "SnapKV": pressed(model, ids, SnapKVPress(compression_ratio=1 - held / ids.shape[1])),
            "DecodingPress, Knorm": pressed(model, ids, decoding),
        },
    )
