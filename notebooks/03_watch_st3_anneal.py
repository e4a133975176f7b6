# %% [markdown]
# # Watch ST³ anneal
#
# Most methods trim once, when the prompt is processed. ST³ goes on: while the answer grows, it removes more visual
# tokens from the KV cache of every layer, on the idea that the rest of the answer needs less and less of the image.
# This notebook records which tokens each layer holds after each step, and draws them.

# %%
import matplotlib.pyplot as plt

import vistrim
from vistrim.analysis import draw_overlay, image_as_seen

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

# %% [markdown]
# Of `N` visual tokens, a layer keeps about `N * (1 - R)**K * f(t)` at step `t`. The first factor falls with depth:
# each of the `K` cuts up to this layer dropped a share `R`. The second falls with the length of the answer, here from
# 1 to 0.1 over 96 tokens along a cosine. That is steeper than the default, so that there is something to see. The
# cuts begin at layer 5, because layers 1 and 2 rank badly in this model. `trace=True` records every token.

# %%
st3 = vistrim.ST3(start_layer=5, stride=2, drop_per_cut=0.2, horizon=96, floor=0.1, interval=1)

with vistrim.trim(model, st3, trace=True) as run:
    output = model.generate(**inputs, max_new_tokens=96)

answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(answer.replace(" and ", "\nand "))

# %% [markdown]
# ## Depth and time
#
# `trace.kept(sample, layer, step)` is the set of tokens in the cache of a layer after a step; step 0 is the prefill.
# From left to right, the answer grows. From top to bottom, cuts have removed more.

# %%
trace = run.report.trace
held = [[len(trace.kept(0, layer, step)) for step in range(trace.steps + 1)] for layer in range(trace.layers)]

plt.figure(figsize=(7, 3))
plt.imshow(held, aspect="auto", cmap="viridis", vmin=0)
plt.colorbar(label="visual tokens held")
plt.xlabel("step")
plt.ylabel("layer")
plt.show()

# %% [markdown]
# ## The cache
#
# In bytes, with the text: the cache of the untouched model grows by one token per step and layer. The trimmed one
# soon loses more visual tokens than it gains text.

# %%
report = run.report

plt.figure(figsize=(7, 3))
plt.plot([size / 2**20 for size in report.kv_bytes_full_per_step], color="gray", label="untouched")
plt.plot([size / 2**20 for size in report.kv_bytes_per_step], color="navy", label="ST³")
plt.xlabel("step")
plt.ylabel("KV cache, MiB")
plt.ylim(bottom=0)
plt.legend()
plt.show()

print(f"KV cache, mean over the steps: {100 * report.kv_fraction_mean:.0f} % of the untouched model's")

# %% [markdown]
# ## The tokens
#
# The same in the image: what layer 6 still holds as the answer proceeds. Tokens are ranked by the attention of the
# token that is being written.

# %%
seen = image_as_seen(inputs["pixel_values"][0], processor.image_processor)
steps = range(0, trace.steps + 1, max(1, trace.steps // 4))
stages = [(f"step {step}: {len(kept)}", kept) for step in steps for kept in [trace.kept(0, 6, step)]]
draw_overlay(seen, (12, 12), stages).quantize(64)

# %% [markdown]
# ## What it costs
#
# Look at the cross and the star: in this layer, most of their tokens are gone by step 32, when the answer is still at
# the top of the image, and background stays. What ranks low now may be needed later, and an evicted token cannot come
# back.

# %%
untouched = model.generate(**inputs, max_new_tokens=96)
expected = processor.decode(untouched[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
for fact in expected.split(" and "):
    print("same " if fact in answer.split(" and ") else "LOST ", fact)

# %% [markdown]
# [Results](../docs/results.md#reasons) has this for 100 scenes: the later a description comes to a shape, the less
# often it is right.
#
# The defaults of `vistrim.ST3()` are gentler: a horizon of 256 tokens, a floor of one half, and an eviction every 8
# steps instead of every step (`interval`). Annealing saves memory. It does not always save time, because each eviction
# moves entries of the cache: see [what limits speed](../docs/concepts/performance.md#bounds-of-each-phase).
