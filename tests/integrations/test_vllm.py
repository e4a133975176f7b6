"""The plug-in in a real vLLM on the CPU, against transformers under `vistrim.trim`: `make test-vllm`.

vLLM needs another release of transformers. It runs in an environment of its own, whose Python the variable
VISTRIM_VLLM_PYTHON names. Prompts and answers are exchanged in files.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

import vistrim
from tests.integrations.vllm.checkpoints import CHECKPOINTS
from tests.integrations.vllm.expected import Question, answers, asked_together
from vistrim.integrations.vllm import embeds
from vistrim.prompting import user_turn
from vistrim.reference.suites import questions
from vistrim.shipped import weights_path

PYTHON = os.environ.get("VISTRIM_VLLM_PYTHON") or None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="needs an environment with vLLM: make test-vllm"),
]
ENGINE = Path(__file__).parent / "vllm" / "engine.py"
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # All engines run in one process, one after the other.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
SELECTORS = (
    "fastervlm:keep=24",
    "vispruner:keep=24",
    "vtc-cls:keep=24,first_layer=1",
    "divprune:keep=24",
    "divprune:keep=24,center=true",
    "scope:keep=24",
    "holov:keep=24,crops=8",
    "visionzip:dominant=20,contextual=4",
    "uniform:keep=24",
    "random:keep=24",
    "pool:keep=24",
)
"""Each keeps 24 tokens of an image."""
UNTOUCHED, UNCACHED, TWO_IMAGES, EMBEDDED = "untouched", "without caches", "two images", "embeddings"
CHOSEN, READS_QUESTION = "vispruner:keep=24", "cdpruner:keep=24"
FAMILIES = {
    # A tower without a class token: the attention that a patch receives.
    "llava-siglip": ("VistrimLlavaForConditionalGeneration", ("fastervlm:keep=6", "visionzip:dominant=4,contextual=2")),
    # An overview and tiles, with newlines.
    "llava-next": (
        "VistrimLlavaNextForConditionalGeneration",
        ("vispruner:keep=6", "divprune:keep=12", "visionzip:dominant=4,contextual=2", "holov:keep=12,crops=4"),
    ),
    # Tiles, of which squares of patches become a token.
    "internvl": (
        "VistrimInternVLForConditionalGeneration",
        ("vispruner:keep=6", "divprune:keep=12", "visionzip:dominant=4,contextual=2", "pool:keep=4"),
    ),
}
"""Models with random weights: their class in vLLM, and methods."""
SIZES = ((32, 64), (64, 32), (64, 64), (20, 60), (64, 44), (32, 32))
"""Widths and heights of the images for them."""
REFUSED = {
    "st3": "acts inside the decoder",
    "cdpruner": "reads the question",
    "vtc-cls:first_layer=16": "first_layer=16",
    "vispruned": "did you mean 'vispruner'",
}
TOKENS, KEPT, NEW_TOKENS, ASKED, SAME = 144, 24, 12, 50, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def model():
    return vistrim.load("reference")


@pytest.fixture(scope="module")
def asked(folder):
    """Questions about one image each."""
    found = []
    for number, item in enumerate(questions("reference", "short,description", limit=8)[:ASKED]):
        path = folder / f"{number}.png"
        item.image().save(path)
        found.append(Question(item.prompt, (path,)))
    assert len(found) == ASKED
    return found


@pytest.fixture(scope="module")
def about_two(folder, asked):
    """Questions about two images of different size each."""
    found = []
    for number, (first, second) in enumerate(zip(asked[::2], asked[1::2], strict=True)):
        path = folder / f"{number}-wide.png"
        Image.open(second.images[0]).resize((200, 100)).save(path)
        found.append(Question(first.prompt, (*first.images, path)))
    return found[:8]


@pytest.fixture(scope="module")
def families(folder):
    """Random models."""
    return {name: CHECKPOINTS[name](folder / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def noise(folder):
    """Questions about images of several sizes."""
    found = []
    for number, size in enumerate(SIZES):
        path = folder / f"{number}-noise.png"
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (*size[::-1], 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(path)
        found.append(Question(f"What color is the star {number}?", (path,)))
    return found


def as_request(text, question):
    """What vLLM is asked."""
    return {"prompt": text, "images": [str(path) for path in question.images]}


def written(processor, questions):
    """Questions in the processor's format, as vLLM is asked them."""
    options = {"tokenize": False, "add_generation_prompt": True}
    turns = [[user_turn(each.prompt, each.opened())] for each in questions]
    return [
        as_request(processor.apply_chat_template(turn, **options), each)
        for turn, each in zip(turns, questions, strict=True)
    ]


@pytest.fixture(scope="module")
def results(folder, model, asked, about_two, families, noise):
    """What each engine answered."""
    loaded, processor = model
    checkpoint = weights_path("reference")
    without_weights = folder / "without-weights"
    shutil.copytree(checkpoint, without_weights, ignore=shutil.ignore_patterns("*.safetensors"))

    def job(method, batches, of=checkpoint, kind="VistrimLlavaForConditionalGeneration", **engine):
        trimmed = {"architectures": [kind], "vistrim": {"method": method}}
        return {
            "model": str(of),
            "overrides": None if method is None else trimmed,
            "batches": batches,
            "tokens": NEW_TOKENS,
            "engine": engine,
        }

    one, two = written(processor, asked), written(processor, about_two)
    embedded = []
    for number, (prompt, text) in enumerate(zip(asked[:16], one, strict=False)):
        path = folder / f"{number}.pt"
        torch.save(embeds(loaded, processor, prompt.opened()[0], prompt.prompt, READS_QUESTION), path)
        embedded.append({"prompt": text["prompt"], "embeds": [str(path)]})
    jobs = {
        UNTOUCHED: job(None, [one]),
        # The second time, prompts and images are in the caches.
        **{method: job(method, [one, one[:16]] if method == CHOSEN else [one]) for method in SELECTORS},
        UNCACHED: job(CHOSEN, [one[:16]], enable_prefix_caching=False, mm_processor_cache_gb=0),
        TWO_IMAGES: job(CHOSEN, [two]),
        EMBEDDED: job(None, [embedded], enable_mm_embeds=True),
        **{method: job(method, [], without_weights) for method in REFUSED},
        **{
            (name, method): job(method, [batch], families[name].path, kind)
            for name, (kind, methods) in FAMILIES.items()
            for batch in [[as_request(families[name].prompt(each.prompt), each) for each in noise]]
            for method in methods
        },
    }
    given, found = folder / "jobs.json", folder / "answers.json"
    given.write_text(json.dumps(list(jobs.values())))
    log = folder / "log.txt"
    with log.open("w") as output:
        subprocess.run([PYTHON, ENGINE, given, found], env=os.environ | CPU, stdout=output, stderr=output, check=False)
    made = json.loads(found.read_text()) if found.exists() else []
    assert len(made) == len(jobs), log.read_text()[-5000:]
    return dict(zip(jobs, made, strict=True))


def check(found, expected, removed):
    """Compare answers and numbers of prompt tokens; all may differ after a tie, and two without any."""
    assert "error" not in found, found["error"]
    for batch in found["batches"]:
        pairs = list(zip(batch, expected, strict=False))
        assert [mine["prompt_tokens"] for mine, _ in pairs] == [its.prompt_tokens - removed for _, its in pairs]
        assert all(its.agrees(mine["tokens"]) for mine, its in pairs)
        same = sum(its.tokens == mine["tokens"] for mine, its in pairs)
        assert same >= len(pairs) - (ASKED - SAME), f"{same} of {len(pairs)}"


@pytest.mark.parametrize("method", [None, *SELECTORS])
def test_answers_are_those_of_transformers(method, model, asked, results):
    loaded, processor = model
    batches = [asked_together(processor, asked[:25]), asked_together(processor, asked[25:])]
    expected = [answer for batch in batches for answer in answers(loaded, batch, method, NEW_TOKENS)]
    check(results[method or UNTOUCHED], expected, TOKENS - KEPT if method else 0)


def test_caches_change_nothing(asked, model, results):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, asked[:16]), CHOSEN, NEW_TOKENS)
    check(results[UNCACHED], expected, TOKENS - KEPT)
    assert results[UNCACHED]["batches"][0] == results[CHOSEN]["batches"][1]


def test_two_images_of_different_size_in_a_prompt(about_two, model, results):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, about_two), CHOSEN, NEW_TOKENS)
    check(results[TWO_IMAGES], expected, 2 * (TOKENS - KEPT))


def test_embeddings_of_a_method_that_reads_the_question(asked, model, results):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, asked[:16]), READS_QUESTION, NEW_TOKENS)
    check(results[EMBEDDED], expected, TOKENS - KEPT)


@pytest.mark.parametrize(("name", "method"), [(name, each) for name, (_, all_) in FAMILIES.items() for each in all_])
def test_answers_of_random_models_are_those_of_transformers(name, method, families, noise, results):
    checkpoint, found = families[name], results[name, method]
    assert "error" not in found, found["error"]
    for question, mine in zip(noise, found["batches"][0], strict=True):
        inputs = checkpoint.inputs(checkpoint.prompt(question.prompt), question.opened())
        (its,) = answers(checkpoint.model, inputs, method, NEW_TOKENS)
        assert mine["prompt_tokens"] < its.prompt_tokens
        assert its.agrees(mine["tokens"]), (its, mine)


@pytest.mark.parametrize("method", REFUSED)
def test_bad_settings_are_refused_before_weights_are_read(method, results):
    assert REFUSED[method] in results[method]["error"]
