"""Shipped checkpoints have the names, files and config of other LLaVA checkpoints."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

import vistrim
from vistrim.methods.base.artifacts import FOLDER
from vistrim.methods.base.cut_schedule import read_cut_schedule
from vistrim.reference.processing import build_tokenizer
from vistrim.shipped import TRAINED_BY, TUNED_FROM, weights_path
from vistrim.tuned_model import FILE

FILES = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
TRAINED = {
    "reference": "bc02442653eb3fe9f4acca530bead5220d25b578735bd71a867f4e65b2dccd23",
    "reference-small": "3d1447ac55fa1b02e969889655027efbab2be75f7a646c591448ab7b8e736f59",
    "reference-quecc-16": "d8f80c4b462e20b74205780a936301084e39d44b1f168f0bc414afe16f0075e7",
}
"""Digests of the weights that load. Storing them in another way must not change them. Those of the tuned model are the
trained ones with a rounded difference to `reference`; the other two are as they were trained."""
HUB = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
"""Parts of LLaVA in the stock class, and their names in `llava-hf/llava-1.5-7b-hf`."""


@pytest.fixture(scope="module", params=TRAINED_BY)
def loaded(request):
    folder = weights_path(request.param)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    return request.param, model, AutoProcessor.from_pretrained(folder), info


def stored(file):
    """Data types of a safetensors file's tensors by name, and its notes."""
    with safe_open(file, framework="pt") as opened:
        names = opened.keys()
        return {name: opened.get_slice(name).get_dtype() for name in names}, opened.metadata()


def digest(model):
    found = hashlib.sha256()
    # Which level of the tower has a name differs between releases of transformers.
    named = {name.replace(".vision_model.", "."): tensor for name, tensor in model.state_dict().items()}
    for name in sorted(named):
        found.update(f"{name} {named[name].dtype}".encode())
        found.update(named[name].contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def test_stock_transformers_loads_the_trained_weights_and_nothing_else(loaded):
    name, model, _, info = loaded
    assert not any(info.values())
    assert digest(model) == TRAINED[name]


def test_the_folder_has_just_the_weights_of_the_model_in_the_names_of_the_hub(loaded):
    name, model, _, _ = loaded
    folder = weights_path(name)
    assert {file.name for file in folder.iterdir() if file.is_file()} == FILES
    expected = {key.replace(".vision_model.", ".") for key in model.state_dict()} - {"lm_head.weight"}
    for ours, theirs in HUB.items():
        expected = {key.replace(ours, theirs) if key.startswith(ours) else key for key in expected}
    types, notes = stored(folder / "model.safetensors")
    assert set(types) == expected
    assert set(types.values()) == {"BF16"}
    assert notes == {"format": "pt"}


def test_the_config_is_true(loaded):
    _, model, processor, _ = loaded
    config, tokenizer = model.config, processor.tokenizer
    text, vision = config.text_config, config.vision_config
    assert config.architectures == [type(model).__name__]
    # Stored in bf16 for size, to be run in fp32.
    assert {config.dtype, model.dtype} == {torch.float32}
    assert {text.dtype, vision.dtype} <= {torch.float32, None}

    assert config.image_token_id == tokenizer.convert_tokens_to_ids(processor.image_token)
    assert text.vocab_size == len(tokenizer) == len(build_tokenizer())
    assert config.tie_word_embeddings == text.tie_word_embeddings is True
    for settings in (text, model.generation_config):
        for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
            assert getattr(settings, token) == getattr(tokenizer, token) is not None

    size = {"height": vision.image_size, "width": vision.image_size}
    assert processor.image_processor.size == size
    assert processor.patch_size == vision.patch_size
    assert processor.vision_feature_select_strategy == config.vision_feature_select_strategy == "default"
    patches = (vision.image_size // vision.patch_size) ** 2
    # The class token is seen by the tower and dropped behind it.
    assert model.model.vision_tower.embeddings.position_ids.numel() == patches + processor.num_additional_image_tokens
    assert config.image_seq_length == patches


def test_an_image_is_as_long_as_the_config_says(loaded):
    _, model, processor, _ = loaded
    inputs = processor(images=torch.zeros(3, 40, 60), text=processor.image_token, return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    placeholders = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert placeholders == len(features[0]) == model.config.image_seq_length
    assert placeholders < model.config.text_config.max_position_embeddings


def test_other_shipped_files_are_parts_of_methods_for_their_model():
    package = Path(vistrim.__file__).parent
    methods = {entry.name for entry in vistrim.list_methods()}
    folders = {name: package / "reference" / "weights" / name for name in TRAINED_BY}
    assert {folders[name] / FILE for name in TUNED_FROM} == set(package.rglob(FILE))
    others = [file for file in package.rglob("*.safetensors") if file.name not in ("model.safetensors", FILE)]
    assert {file.parent for file in others} <= {folder / FOLDER for folder in folders.values()}
    for file in others:
        notes = stored(file)[1]
        assert notes["method"] == file.stem in methods
        assert notes["model"] == file.parent.parent.name
    assert len(others) >= 3
    schedules = list(package.rglob(f"{FOLDER}/*.json"))
    assert {file.parent for file in schedules} <= {file.parent for file in others}
    for file in schedules:
        found = read_cut_schedule(file)
        assert found.model == file.parent.parent.name
        assert file.name == f"st3-{found.budget.replace('=', '-')}.json"
    assert len(schedules) >= 2
    assert not [file for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in package.rglob(kind)]
