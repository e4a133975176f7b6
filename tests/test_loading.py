import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

import vistrim
from tests.cli import checkpoint as builder
from vistrim import LoadError, load
from vistrim._utils.memory import is_out_of_memory
from vistrim.loading import fingerprint, is_local, is_on_hub


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return builder.save(tmp_path_factory.mktemp("model") / "tiny-llava")


@pytest.fixture
def copy(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def refusal(name, **options) -> str:
    with pytest.raises(LoadError) as error:
        load(name, **options)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_stock_objects_ready_to_generate(original):
    model, processor = load(str(original))
    assert type(model) is transformers.LlavaForConditionalGeneration
    assert type(processor) is transformers.LlavaProcessor
    assert not model.training
    assert processor.tokenizer.padding_side == "left"
    assert model.device == torch.device("cpu")
    assert not hasattr(model, "_hf_hook")


def test_a_path_object_will_do(original):
    assert type(load(original, device="cpu")[0]) is transformers.LlavaForConditionalGeneration


def test_auto_keeps_the_dtype_of_the_checkpoint(copy):
    assert load(copy)[0].dtype == torch.float32
    load(copy, dtype="bfloat16")[0].save_pretrained(copy)
    assert load(copy)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype(original, dtype):
    assert load(original, dtype=dtype)[0].dtype == torch.bfloat16


def test_a_reference_model_by_name(original, monkeypatch):
    monkeypatch.setattr("vistrim.loading.weights_path", lambda name: original)
    assert type(load("reference")[0]) is transformers.LlavaForConditionalGeneration


def test_a_reference_model_that_is_not_shipped(monkeypatch):
    def missing(name):
        raise FileNotFoundError(f"{name} is not shipped:\nrun python -m training.reference.train")

    monkeypatch.setattr("vistrim.loading.weights_path", missing)
    assert refusal("reference-small") == "reference-small is not shipped: run python -m training.reference.train"


def test_local_names(original):
    assert is_local("reference")
    assert is_local(original)
    assert not is_local("llava-hf/llava-1.5-7b-hf")
    assert is_on_hub("llava-hf/llava-1.5-7b-hf")
    assert not is_on_hub("reference")
    assert not is_on_hub(original)
    with pytest.raises(LoadError, match="there is no model directory"):
        is_on_hub("./none")


@pytest.mark.parametrize("name", ["/no/such/model", "./none", "~/none/such", "a/b/c", ""])
def test_no_such_directory(name):
    assert "there is no model directory" in refusal(name)


@pytest.mark.parametrize("name", ["refrence", "Reference", "reference_small"])
def test_a_misspelt_reference_model(name):
    assert "did you mean 'reference" in refusal(name)


def test_a_file(original):
    assert "is a file: pass the model's directory" in refusal(original / "config.json")


def test_a_directory_that_is_no_checkpoint(tmp_path):
    assert "has no config.json" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "brand_new"}'])
def test_a_configuration_that_is_none(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert "cannot load the configuration" in refusal(tmp_path)


def test_a_text_only_model_is_refused_before_its_weights_are_looked_for(tmp_path):
    transformers.LlamaConfig(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "is a llama model (LlamaForCausalLM)" in message
    assert "image-text-to-text model" in message


def test_code_of_a_checkpoint_is_never_run_nor_asked_about(copy, monkeypatch):
    ran = copy.parent / "ran"
    (copy / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    edit(copy / "config.json", model_type="brand_new", auto_map={"AutoConfig": "code.Config"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert "needs remote code" in refusal(copy)
    assert not ran.exists()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize("damage", [os.remove, _truncate, lambda path: path.write_bytes(b"garbage")])
def test_damaged_weights(copy, damage):
    damage(copy / "model.safetensors")
    assert "cannot load the weights" in refusal(copy)


@pytest.mark.parametrize("values", [{"hidden_size": 64}, {"vocab_size": 200}])
def test_weights_of_another_shape(copy, values):
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", text_config=config["text_config"] | values)
    assert "cannot load the weights" in refusal(copy)


def test_missing_weights_are_not_replaced_by_random_numbers(copy):
    config = json.loads((copy / "config.json").read_text())
    edit(copy / "config.json", text_config=config["text_config"] | {"num_hidden_layers": 6})
    assert "lacks 9 of the model's weights" in refusal(copy)


@pytest.mark.parametrize("files", [["processor_config.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_missing_processor_files(copy, files):
    for file in files:
        (copy / file).unlink()
    assert "cannot load the processor" in refusal(copy)


@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer.json"])
def test_damaged_processor_files(copy, file):
    (copy / file).write_text("{")
    assert "cannot load the processor" in refusal(copy)


def test_a_processor_without_patch_size(copy):
    edit(copy / "processor_config.json", patch_size=None)
    assert "has no patch_size" in refusal(copy)


def test_a_checkpoint_with_a_tokenizer_alone(copy, monkeypatch):
    tokenizer = transformers.AutoTokenizer.from_pretrained(copy)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda *_, **__: tokenizer)
    assert "comes without tokenizer and image_processor" in refusal(copy)


@pytest.mark.parametrize("dtype", ["float99", "int8", "", torch.int8])
def test_no_such_dtype(original, dtype):
    assert "choose auto, float32, bfloat16" in refusal(original, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:-1", "cpu cuda"])
def test_no_such_device(original, device):
    assert "choose auto, cpu, cuda" in refusal(original, device=device)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta"])
def test_a_device_that_is_not_there(original, monkeypatch, device):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert refusal(original, device=device) == f"device {device!r} is not available here: use device cpu"


def test_a_device_beyond_the_last_one(original, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert "the last one is cuda:1" in refusal(original, device="cuda:2")


def test_the_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal("no-such-group/no-such-model")
    assert "not on this machine and huggingface.co cannot be reached" in message


@pytest.mark.parametrize(
    ("cause", "says"),
    [(GatedRepoError, "is gated: accept its license"), (RepositoryNotFoundError, "check the spelling")],
)
def test_errors_of_the_hub(monkeypatch, cause, says):
    def answer(*_, **__):
        raise OSError("a long\nexplanation") from cause.__new__(cause)

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", answer)
    assert says in refusal("group/model")


@pytest.mark.parametrize("name", ["group/mo del", "-a/b"])
def test_invalid_names_on_the_hub(name):
    assert "check the spelling" in refusal(name)


def test_a_model_that_does_not_fit(original, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", fail)
    assert "does not fit into memory: use dtype bfloat16" in refusal(original)


def test_out_of_memory_is_recognized():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_it_is_an_error_of_ours():
    assert issubclass(LoadError, vistrim.VistrimError)


def test_reference_models_are_stored_small_and_loaded_in_fp32():
    for name in ("reference", "reference-small"):
        model, processor = vistrim.load(name, device="cpu")
        assert model.dtype == torch.float32
        assert processor.tokenizer.padding_side == "left"
        with vistrim.trim(model, vistrim.ST3()):
            pass


@contextmanager
def changed(part, name, value):
    before = getattr(part, name)
    setattr(part, name, value)
    yield
    setattr(part, name, before)


def test_a_fingerprint_tells_models_apart_and_not_releases_of_transformers(monkeypatch):
    model, processor = load("reference-small", device="cpu")
    own = fingerprint(model, processor)

    # Another release writes its version, may order settings otherwise, and adds settings with defaults.
    written = transformers.PreTrainedConfig.to_dict
    added = {"transformers_version": "9.0.0", "added": 0.5}
    with monkeypatch.context() as release:
        release.setattr(
            transformers.PreTrainedConfig, "to_dict", lambda self: dict(reversed((written(self) | added).items()))
        )
        release.setattr("transformers.generation.configuration_utils.__version__", "9.0.0")
        assert fingerprint(model, processor) == own

    weight = model.get_output_embeddings().weight
    different = [
        (model.config.text_config, "rms_norm_eps", 1e-5),
        (model.config.vision_config, "hidden_act", "quick_gelu"),
        (model.config, "vision_feature_layer", -2),
        (model.generation_config, "repetition_penalty", 1.1),
        (processor.image_processor, "image_mean", [0.4, 0.5, 0.5]),
        (processor, "num_additional_image_tokens", 0),
        (processor, "chat_template", "{{ messages }}"),
        (weight, "data", weight.detach() + 1),
    ]
    found = {own}
    for part, name, value in different:
        with changed(part, name, value):
            found.add(fingerprint(model, processor))
    assert len(found) == 1 + len(different)
    assert fingerprint(model, processor) == own


class WithoutDefaults(transformers.PreTrainedConfig):
    has_no_defaults_at_init = True

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width


def test_settings_that_have_no_defaults_are_part_of_a_fingerprint(monkeypatch):
    model, processor = load("reference-small", device="cpu")
    found = set()
    for width in (2, 2, 3):
        monkeypatch.setattr(model, "generation_config", WithoutDefaults(width))
        found.add(fingerprint(model, processor))
    assert len(found) == 2
