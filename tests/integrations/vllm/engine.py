"""Answers by vLLM, in an environment of its own: `python engine.py jobs.json answers.json`.

A job is an engine that is started, and batches of requests to it, each with its method (null: that of the start):

{"model": folder, "overrides": {...}, "engine": {...}, "methods": [text, ...], "batches": [[{"prompt": text,
 "images": [file, ...]}, ...], ...], "tokens": 12}

Its result is {"error": text} or {"batches": [[{"prompt_tokens": 10, "tokens": [...]}, ...], ...]}.
"""

import contextlib
import gc
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers.models.auto import image_processing_auto
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

# Images are resized by Pillow, as in the environment without torchvision.
image_processing_auto.is_torchvision_available = lambda: False

ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 1024,
    "max_num_seqs": 16,
    # The engine starts with a batch of this size. Some images are divided over two steps.
    "max_num_batched_tokens": 1024,
    "disable_log_stats": True,
    "seed": 0,
}


def request(asked: dict) -> dict:
    """A request with its images opened, or their embeddings loaded."""
    if "embeds" in asked:
        images = [torch.load(name)[None] for name in asked["embeds"]]
    else:
        images = [Image.open(name).convert("RGB") for name in asked["images"]]
    return {"prompt": asked["prompt"], "multi_modal_data": {"image": images if len(images) > 1 else images[0]}}


def switch(engine: LLM, notation: str) -> None:
    """Give a running engine another method, as if it had been started with it. What is in its caches stays there."""
    info = engine.llm_engine.renderer.get_mm_processor().info
    info.get_hf_config().vistrim = {"method": notation}
    type(info).__init__(info, info.ctx)
    engine.apply_model(lambda model: model.trim_with(info.method))


def answers(job: dict) -> dict:
    """Start an engine and answer."""
    most = max((len(asked.get("images", [0])) for batch in job["batches"] for asked in batch), default=1)
    sampling = SamplingParams(temperature=0, max_tokens=job["tokens"])
    try:
        engine = LLM(
            model=job["model"],
            hf_overrides=job["overrides"],
            limit_mm_per_prompt={"image": most},
            **(ENGINE | job.get("engine", {})),
        )
        found = []
        for method, batch in zip(job["methods"], job["batches"], strict=True):
            if method is not None:
                switch(engine, method)
            found.append(engine.generate([request(asked) for asked in batch], sampling, use_tqdm=False))
        del engine
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "batches": [
            [
                {"prompt_tokens": len(answer.prompt_token_ids), "tokens": list(answer.outputs[0].token_ids)}
                for answer in batch
            ]
            for batch in found
        ]
    }


def main(jobs: str, results: str) -> None:
    """Work through all jobs, one engine after the other in this process."""
    found = []
    for job in json.loads(Path(jobs).read_text()):
        found.append(answers(job))
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()
        gc.collect()
        Path(results).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
