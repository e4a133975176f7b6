# %% [markdown]
# # Speed and memory
#
# How much faster is a model without half of its visual tokens? It depends on the phase, on the size of the model, and
# on the hardware. This notebook measures, and puts a *bound* next to each measurement: the speed-up that the removed
# work would give if nothing else cost time. A bound follows from counts of FLOPs or bytes alone, and only the method
# can move it. How much of it is reached is up to the implementation and the hardware.

# %%
import vistrim
from vistrim.benchmark.keep_everything import KeepEverything


def show(found):
    untouched, *rows = found.rows
    print(f"{'':16}{'prefill':>9}{'bound':>9}{'decode':>9}{'bound':>9}{'KV cache':>11}")
    for row in rows:
        speedups = (row.speedups["prefill"], row.speedups["step"])
        cells = "".join(f"{speedup.ratio:8.2f}x{speedup.limit:8.2f}x" for speedup in speedups)
        print(f"{row.label:16}{cells}{100 * row.cost.kv_bytes[-1] / untouched.cost.kv_bytes[-1]:9.0f} %")


# %% [markdown]
# ## A small shape
#
# `vistrim.bench` takes a loaded model, or the name of a known shape, which it fills with random weights. Times do not
# depend on the values of weights, and nothing has to be downloaded. This is LLaVA-1.5-7B with 6 of its 32 layers and
# an eighth of its width.
#
# In each round, the untouched model and every method answer once, in turns; a speed-up is the median of the ratios
# within rounds. `keep-everything` ranks like ST³ but removes nothing, so it shows what the engine itself costs.

# %%
methods = {"keep-everything": KeepEverything(), "st3": "st3", "fastv": "fastv"}
found = vistrim.bench("llava-1.5-7b", methods, layers=6, hidden=512, new_tokens=5, repeat=3)
show(found)

# %% [markdown]
# These are figures of the machine that ran this notebook last, which may have been busy. On yours they differ, except
# for the bounds and the memory.
#
# **Prefill** is a matter of compute. The bound is the ratio of FLOPs, and layers with many rows come close to it.
#
# **Decode** gains nothing here, and cannot: a step reads all weights and the whole cache, and the weights are most of
# it. The bound is near 1 whatever is removed. A measured value above the bound is not a gain of trimming, because
# `keep-everything` has it too: the trimmed cache grows in place, while that of transformers is copied at every step.

# %% [markdown]
# ## Why not `reference`
#
# The other notebooks use `reference`, and say nothing about speed. Here is why.

# %%
model, processor = vistrim.load("reference")
question = [
    {"type": "image", "path": "../examples/images/scene-3.png"},
    {"type": "text", "text": "Describe the image."},
]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": question}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device)
show(vistrim.bench(model, methods, inputs, new_tokens=5, repeat=3))

# %% [markdown]
# Its bounds are as high as those of a large model, and it reaches none of them. With 128 columns and 144 visual
# tokens, a layer spends its time on fixed costs: Python, and starting one small operation after another. Removed
# tokens do not change these, and the engine adds some. `reference` shows whether answers stay right. **It is too
# small to show speed**, and so is any model of its size.

# %% [markdown]
# ## When decoding gains
#
# The cache has to be a large part of what a step reads. The next cell computes the bound for the full LLaVA-1.5-7B in
# 16 bits, with 64 text tokens, when 60 % of the entries of visual tokens are gone. Weights are read once per step for
# the whole batch, and a cache once per sample.

# %%
weights = 2 * 6.6e9  # bytes of the decoder's weights
entry = 2 * 2 * 32 * 4096  # bytes of one token: key and value, 16 bits, 32 layers, 4096 columns

for visual, batch in [(576, 1), (576, 16), (2928, 1), (2928, 16)]:
    full = batch * (visual + 64) * entry
    trimmed = batch * (0.4 * visual + 64) * entry
    bound = (weights + full) / (weights + trimmed)
    sizes = f"{full / 2**30:4.1f} GiB, trimmed {trimmed / 2**30:4.1f} GiB"
    print(f"{visual:4} visual tokens, batch {batch:2}: cache {sizes}, decode at most {bound:.2f}x")

# %% [markdown]
# So, for one image and one user, expect faster prefill and less memory, and no faster decoding. Long contexts and
# large batches gain in all three, and memory that is saved is room for more samples.
#
# To measure a model of your own: `vistrim bench --model NAME --method st3 --out results`.
# [What limits speed](../docs/concepts/performance.md) has measurements at the full width of LLaVA-1.5-7B, and the
# situations in which trimming does not pay.
