"""Requests per second of vLLM with and without the plug-in, in one run: docs/guides/vllm.md.

Runs in the environment of `make install-vllm`. The engines live in processes of their own and take turns in rounds, so
that drift of the machine's speed affects all alike. Every request has an image of its own, and no cache is used.
FOLDER is what `vistrim.reference_lm.checkpoint()` returns in the environment of `make run`. A model runs on one thread,
because vLLM's scheduler occupies a core, too.

    OMP_NUM_THREADS=1 .venv-vllm/bin/python -m studies.vllm.measure FOLDER --out studies/vllm/results/reference-lm.json
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from studies.record import record
from vistrim._utils.labels import UNTOUCHED

ARCHITECTURE = "VistrimLlavaForConditionalGeneration"
PROMPT = "<|im_start|>user\n<image>\nDescribe the image.<|im_end|>\n<|im_start|>assistant\n"
IDLE = 2.0
"""Seconds between engines: processes of vLLM poll for one second after their last step."""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Measure, and print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a LLaVA 1.5 checkpoint")
    parser.add_argument("--method", action="append", help="default: vispruner:keep=0.333 and vispruner:keep=64")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=336, help="side of the images")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # Before vLLM is imported, which reads them.
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import vllm

    methods = [UNTOUCHED, *(options.method or ["vispruner:keep=0.333", "vispruner:keep=64"])]
    engines = {method: start(method, options) for method in methods}
    rows, prompt_tokens = [], {}
    for concurrency in options.concurrency:
        seconds: dict[str, list[float]] = {method: [] for method in methods}
        # The first round warms up.
        for turn in range(options.rounds + 1):
            for method, engine in engines.items():
                time.sleep(IDLE)
                elapsed, prompt_tokens[method] = answer(engine, concurrency, turn, options)
                if turn > 0:
                    seconds[method].append(elapsed)
        for method in methods:
            rate = concurrency / statistics.median(seconds[method])
            taken = seconds[method]
            rows.append({"method": method, "concurrency": concurrency, "requests_per_second": rate, "seconds": taken})
            print(f"{concurrency:4d} {rate:8.3f} requests/s  {method}", flush=True)
    record(options, vllm=vllm.__version__, prompt_tokens=prompt_tokens, rows=rows)


def start(method: str, options: argparse.Namespace) -> Any:
    """Start an engine."""
    from vllm import LLM

    trimmed = {"architectures": [ARCHITECTURE], "vistrim": {"method": method}}
    return LLM(
        options.model,
        dtype=options.dtype,
        hf_overrides=None if method == UNTOUCHED else trimmed,
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=max(options.concurrency),
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        disable_log_stats=True,
    )


def answer(engine: Any, concurrency: int, turn: int, options: argparse.Namespace) -> tuple[float, int]:
    """Return the seconds for as many requests at once, each with an image of its own, and the tokens of a prompt."""
    import numpy as np
    from PIL import Image
    from vllm import SamplingParams

    random = np.random.default_rng((concurrency, turn))
    shape = (concurrency, options.pixels, options.pixels, 3)
    images = [Image.fromarray(pixels) for pixels in random.integers(0, 256, shape, dtype=np.uint8)]
    requests = [{"prompt": options.prompt, "multi_modal_data": {"image": image}} for image in images]
    sampling = SamplingParams(temperature=0, max_tokens=options.new_tokens, ignore_eos=True)
    begin = time.perf_counter()
    answers = engine.generate(requests, sampling, use_tqdm=False)
    return time.perf_counter() - begin, len(answers[0].prompt_token_ids)


if __name__ == "__main__":
    main()
