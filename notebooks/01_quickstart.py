# %% [markdown]
# # Quickstart
#
# A multimodal model turns an image into hundreds of *visual tokens*. Every layer computes all of them, and the KV
# cache stores them until the answer ends, although most have little effect on it. vistrim removes tokens while the
# model runs. In this notebook, a model describes an image, first untouched and then with half of the computation.
#
# It runs offline, on a CPU. `reference` is a small LLaVA that comes with vistrim and knows nothing but drawn shapes.

# %%
from PIL import Image

import vistrim

model, processor = vistrim.load("reference")
Image.open("../examples/images/scene-2.png")

# %% [markdown]
# `model` and `processor` are stock objects of transformers, and the next cell is plain transformers code. In place of
# `"reference"`, `vistrim.load` takes any Hugging Face id or local folder of a supported model.

# %%
question = [
    {"type": "image", "path": "../examples/images/scene-2.png"},
    {"type": "text", "text": "Describe the image."},
]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": question}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device)


def answer():
    output = model.generate(**inputs, max_new_tokens=100)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


untouched = answer()
print(untouched.replace(" and ", "\nand "))

# %% [markdown]
# ## Trim
#
# Inside `vistrim.trim`, the same call works with fewer visual tokens. A *method* decides which ones stay. This one is
# ST³, with a schedule that was fitted to this model at half of the FLOPs.

# %%
with vistrim.trim(model, "st3:schedule=auto") as run:
    trimmed = answer()

print(trimmed.replace(" and ", "\nand "))
print("\nthe same answer:", trimmed == untouched)

# %% [markdown]
# ## What it took
#
# Every run has a report. Counts and bytes are read from the tensors of this run, and times from its clock.

# %%
print(run.report)

# %% [markdown]
# The tokens leave in several *cuts*. From a cut on, a removed token is neither computed nor stored. A mask that only
# hides tokens would save nothing.

# %%
for layer, (visual,) in enumerate(run.report.visual_tokens_per_layer):
    print(f"layer {layer:2}: {visual:3} visual tokens {'#' * (visual // 4)}")

# %% [markdown]
# ## Afterwards
#
# Outside of the block, the model is exactly as before.

# %%
answer() == untouched

# %% [markdown]
# ## Next
#
# One image proves little. [The next notebook](02_compare_methods.ipynb) asks more questions and compares several
# methods. For a model of your own, `vistrim methods --model NAME` lists the methods that run on it, and
# [get started as a user](../docs/get-started/user.md) has the steps.
