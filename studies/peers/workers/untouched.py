"""transformers itself: the default cache, and a static cache with the compiled model."""

import torch
from transformers import AutoModelForImageTextToText, CompileConfig

from studies.peers.workers.common import arguments, generating, serve

if __name__ == "__main__":
    options = arguments()
    model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=torch.float32).eval()
    inputs = torch.load(options.model / "inputs.pt", weights_only=True)
    # On CPUs, `generate` compiles only on request. It compiles decoding steps; prefill is not compiled.
    compiled = CompileConfig()
    compiled._compile_all_devices = True
    static = generating(model, inputs, cache_implementation="static", compile_config=compiled)
    serve(options, {"untouched": generating(model, inputs), "static cache, compiled": static})
