"""What every worker does: it loads its model, then times one side whenever its parent names it.

Workers run in the environment of their peer, with torch and transformers only. They read names of sides from standard
input, and write one JSON object per line to standard output.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

Side = Callable[[int], Any]
"""Generates so many tokens; returns the KV cache."""


def arguments() -> argparse.Namespace:
    """Parse the command line of a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="checkpoint, with inputs.pt beside the weights")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the peer, as JSON")
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def serve(options: argparse.Namespace, sides: Mapping[str, Side]) -> None:
    """Time sides until standard input ends. The first line says that the worker is ready."""
    tell({"sides": list(sides), "transformers": transformers.__version__, "torch": torch.__version__})
    for line in sys.stdin:
        side = sides[line.strip()]
        with torch.no_grad():
            first, _ = timed(side, 1)
            whole, cache = timed(side, options.new_tokens)
        step = (whole - first) / (options.new_tokens - 1)
        tell({"first": first, "whole": whole, "step": step, "kv_bytes": kv_bytes(cache)})


def timed(side: Side, tokens: int) -> tuple[float, Any]:
    """Time one generation."""
    began = time.perf_counter()
    cache = side(tokens)
    return time.perf_counter() - began, cache


def tell(found: Mapping[str, Any]) -> None:
    """Write a line for the parent."""
    print(json.dumps(found), flush=True)


def kv_bytes(cache: Any) -> int:
    """Sum the bytes of all keys and values in a cache."""
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def generating(model: Any, inputs: Mapping[str, Any], **settings: Any) -> Side:
    """Generate greedily and to the full length with ``generate``."""

    def side(tokens: int) -> Any:
        found = model.generate(
            **inputs,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            return_dict_in_generate=True,
            **settings,
        )
        return found.past_key_values

    return side
