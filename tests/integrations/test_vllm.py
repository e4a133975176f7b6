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
from vistrim.prompting import image_parts, user_turn
from vistrim.reference.suites import questions
from vistrim.shipped import weights_path

PYTHON = os.environ.get("VISTRIM_VLLM_PYTHON") or None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="needs an environment with vLLM: make test-vllm"),
]
ENGINE = Path(__file__).parent / "vllm" / "engine.py"
LLAVA = "VistrimLlavaForConditionalGeneration"
OWN_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Engines run one after the other in one process.
    OWN_PROCESS: "0",
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
UNTOUCHED, TRIMMED, UNCACHED = "untouched", "trimmed", "without caches"
CHOSEN, READS_QUESTION = "vispruner:keep=24", "cdpruner:keep=24"
QWEN = (
    "vispruner:keep=6,positions=original",
    "divprune:keep=0.25,positions=original",
    "visionzip:dominant=4,contextual=2,positions=original",
    "pool:keep=4",
)
FAMILIES = {
    # A tower without a class token: the attention that a patch receives.
    "llava-siglip": (LLAVA, ("fastervlm:keep=6", "visionzip:dominant=4,contextual=2")),
    # An overview and tiles, with newlines.
    "llava-next": (
        "VistrimLlavaNextForConditionalGeneration",
        ("vispruner:keep=6", "visionzip:dominant=4,contextual=2", "holov:keep=12,crops=4", "pool:keep=4"),
    ),
    # Tiles that the model is given like images, and of which squares of patches become a token.
    "internvl": (
        "VistrimInternVLForConditionalGeneration",
        (
            "vispruner:keep=6",
            "divprune:keep=12",
            "holov:keep=6,crops=2",
            "visionzip:dominant=4,contextual=2",
            "random:keep=6",
            "pool:keep=4",
        ),
    ),
    # Windows, and positions with a time, a row and a column.
    "qwen2_5_vl": ("VistrimQwen2_5_VLForConditionalGeneration", QWEN),
    # Features for further layers, in which merged tokens are averaged, too.
    "qwen3_vl": ("VistrimQwen3VLForConditionalGeneration", QWEN),
}
"""Models with random weights: their class in vLLM, and methods."""
SIZES = ((32, 64), (64, 32), (64, 64), (20, 60), (64, 44), (32, 32))
"""Widths and heights of the images for them."""
REFUSED = {
    ("reference", "st3"): "acts inside the decoder",
    ("reference", "cdpruner"): "reads the question",
    ("reference", "vtc-cls:first_layer=16"): "first_layer=16",
    ("reference", "vispruned"): "did you mean 'vispruner'",
    ("qwen2_5_vl", "vispruner:keep=6"): "positions=original",
    # With vLLM's own worker.
    ("qwen2_5_vl", "pool:keep=4"): "recompute_mrope_positions",
}
NEW_TOKENS, ASKED, SAME = 12, 50, 48


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
    turns = [[user_turn(each.prompt, image_parts(each.opened()))] for each in questions]
    return [
        as_request(processor.apply_chat_template(turn, **options), each)
        for turn, each in zip(turns, questions, strict=True)
    ]


def job(model, asked, kind=LLAVA, **engine):
    """An engine and, for each method, the batches that it is asked. A start is slow, so it serves several methods."""
    first = next(iter(asked))
    return {
        "model": str(model),
        "overrides": None if first is None else {"architectures": [kind], "vistrim": {"method": first}},
        "methods": [method for method, batches in asked.items() for _ in batches],
        "batches": [batch for batches in asked.values() for batch in batches],
        "tokens": NEW_TOKENS,
        "engine": engine,
    }


def run(folder, name, jobs, own_process=False):
    """Start the engines of some jobs one after the other, and return what each answered."""
    given, found, log = (folder / f"{name}-{what}" for what in ("jobs.json", "answers.json", "log.txt"))
    given.write_text(json.dumps(list(jobs.values())))
    environment = os.environ | CPU | {OWN_PROCESS: str(int(own_process))}
    with log.open("w") as output:
        subprocess.run([PYTHON, ENGINE, given, found], env=environment, stdout=output, stderr=output, check=False)
    made = json.loads(found.read_text()) if found.exists() else []
    assert len(made) == len(jobs), log.read_text()[-5000:]
    return {name: asked | answered for (name, asked), answered in zip(jobs.items(), made, strict=True)}


def batches_of(found, method):
    """Answers of an engine that started."""
    assert "error" not in found, found["error"]
    return [batch for batch, of in zip(found["batches"], found["methods"], strict=True) if of == method]


@pytest.fixture(scope="module")
def requests(model, asked, about_two):
    """What vLLM is asked about one image, and about two."""
    return written(model[1], asked), written(model[1], about_two)


@pytest.fixture(scope="module")
def embedded(folder, model, asked, requests):
    """Requests with embeddings in place of images."""
    loaded, processor = model
    found = []
    for number, (prompt, text) in enumerate(zip(asked[:16], requests[0], strict=False)):
        path = folder / f"{number}.pt"
        torch.save(embeds(loaded, processor, prompt.opened()[0], prompt.prompt, READS_QUESTION), path)
        found.append({"prompt": text["prompt"], "embeds": [str(path)]})
    return found


@pytest.fixture(scope="module")
def results(folder, requests, embedded):
    """Answers on `reference`."""
    (one, two), checkpoint = requests, weights_path("reference")
    # All methods are given the same images, with caches. The second time, prompts and images are in the caches.
    batches = {method: [one, one[:16], two] if method == CHOSEN else [one] for method in SELECTORS}
    jobs = {
        TRIMMED: job(checkpoint, batches),
        UNCACHED: job(checkpoint, {CHOSEN: [one[:16]]}, enable_prefix_caching=False, mm_processor_cache_gb=0),
        UNTOUCHED: job(checkpoint, {None: [one, embedded]}, enable_mm_embeds=True),
    }
    return run(folder, "reference", jobs)


@pytest.fixture(scope="module")
def apart(folder, requests):
    """Answers on `reference` by an engine in a process of its own, as in `vllm serve`; the second time from caches."""
    one = requests[0][:16]
    # No method is named for the batches: the process has been started with it.
    asked = job(weights_path("reference"), {CHOSEN: [one, one]}) | {"methods": [None, None]}
    return run(folder, "apart", {CHOSEN: asked}, own_process=True)[CHOSEN]


@pytest.fixture(scope="module")
def family_results(folder, families, noise):
    """Answers of random models."""
    jobs = {}
    for name, (kind, methods) in FAMILIES.items():
        batch = [as_request(families[name].prompt(each.prompt), each) for each in noise]
        jobs[name] = job(families[name].path, {method: [batch] for method in methods}, kind, **families[name].engine)
    return run(folder, "families", jobs)


@pytest.fixture(scope="module")
def refusals(folder, families):
    """What engines without weights say."""
    jobs = {}
    for name, method in REFUSED:
        without_weights = folder / f"{name}-without-weights"
        path = weights_path(name) if name == "reference" else families[name].path
        shutil.copytree(path, without_weights, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
        jobs[name, method] = job(without_weights, {method: []}, LLAVA if name == "reference" else FAMILIES[name][0])
    return run(folder, "refusals", jobs)


def check(batches, expected):
    """Compare answers and numbers of prompt tokens; all may differ after a tie, and two without any."""
    for batch in batches:
        pairs = list(zip(batch, expected, strict=False))
        assert [mine["prompt_tokens"] for mine, _ in pairs] == [its.prompt_tokens for _, its in pairs]
        assert all(its.agrees(mine["tokens"]) for mine, its in pairs)
        same = sum(its.tokens == mine["tokens"] for mine, its in pairs)
        assert same >= len(pairs) - (ASKED - SAME), f"{same} of {len(pairs)}"


@pytest.mark.parametrize("method", [None, *SELECTORS])
def test_answers_are_those_of_transformers(method, model, asked, results):
    loaded, processor = model
    batches = [asked_together(processor, asked[:25]), asked_together(processor, asked[25:])]
    expected = [answer for batch in batches for answer in answers(loaded, batch, method, NEW_TOKENS)]
    found = batches_of(results[TRIMMED if method else UNTOUCHED], method)
    check(found[: 2 if method == CHOSEN else 1], expected)


def test_caches_and_processes_change_nothing(asked, model, results, apart):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, asked[:16]), CHOSEN, NEW_TOKENS)
    uncached, cached = batches_of(results[UNCACHED], CHOSEN), batches_of(apart, None)
    check([*uncached, *cached], expected)
    assert uncached == batches_of(results[TRIMMED], CHOSEN)[1:2] == cached[1:]


def test_two_images_of_different_size_in_a_prompt(about_two, model, results):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, about_two), CHOSEN, NEW_TOKENS)
    check(batches_of(results[TRIMMED], CHOSEN)[2:], expected)


def test_embeddings_of_a_method_that_reads_the_question(asked, model, results):
    loaded, processor = model
    expected = answers(loaded, asked_together(processor, asked[:16]), READS_QUESTION, NEW_TOKENS)
    check(batches_of(results[UNTOUCHED], None)[1:], expected)


@pytest.mark.parametrize(("name", "method"), [(name, each) for name, (_, all_) in FAMILIES.items() for each in all_])
def test_answers_of_random_models_are_those_of_transformers(name, method, families, noise, family_results):
    checkpoint, (found,) = families[name], batches_of(family_results[name], method)
    for question, mine in zip(noise, found, strict=True):
        inputs = checkpoint.inputs(checkpoint.prompt(question.prompt), question.opened())
        (its,) = answers(checkpoint.model, inputs, method, NEW_TOKENS, checkpoint.renumbers)
        assert mine["prompt_tokens"] == its.prompt_tokens < inputs["input_ids"].shape[1]
        assert its.agrees(mine["tokens"]), (its, mine)


@pytest.mark.parametrize(("name", "method"), REFUSED)
def test_bad_settings_are_refused_before_weights_are_read(name, method, refusals):
    assert REFUSED[name, method] in refusals[name, method]["error"]
