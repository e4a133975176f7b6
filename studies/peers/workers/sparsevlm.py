"""The package sparsevlm cuts the KV cache of the visual tokens after prefill. It needs attention maps, thus eager."""

from typing import Any

import torch
from sparsevlm import sparsevlm_generate
from transformers import AutoModelForImageTextToText

from studies.peers.workers.common import arguments, generating, serve

if __name__ == "__main__":
    options = arguments()
    inputs = torch.load(options.model / "inputs.pt", weights_only=True)
    sdpa, eager = (
        AutoModelForImageTextToText.from_pretrained(
            options.model, dtype=torch.float32, attn_implementation=kernel
        ).eval()
        for kernel in ("sdpa", "eager")
    )
    visual = int((inputs["input_ids"] == eager.config.image_token_id).sum()) // len(inputs["input_ids"])
    held: dict[str, Any] = {}

    def side(tokens: int) -> Any:
        # It returns no cache.
        hook = eager.model.language_model.register_forward_hook(
            lambda _, __, output: held.update(cache=output.past_key_values)
        )
        sparsevlm_generate(eager, None, inputs, visual, options.settings["keep"], max_new_tokens=tokens, device="cpu")
        hook.remove()
        return held.pop("cache")

    serve(
        options,
        {"untouched": generating(sdpa, inputs), "untouched, eager": generating(eager, inputs), "sparsevlm": side},
    )
