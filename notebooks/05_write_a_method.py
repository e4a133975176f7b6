# %% [markdown]
# # Write your own method
#
# A method only decides which visual tokens stay. Positions, masks, caches and batches are the work of the engine. So
# an idea becomes a working method in a few lines, and this notebook takes one from the idea to a comparison.
#
# **The idea.** Most of a drawn scene is background, whose patches look alike. The patches that differ most from the
# average of their image should be the shapes.

# %%
from dataclasses import dataclass

import torch

import vistrim
from vistrim.analysis import draw_overlay, image_as_seen
from vistrim.methods import ImageChoice, ImageTokens, PerImage, register
from vistrim.reference.suites import questions

model, processor = vistrim.load("reference")

# %% [markdown]
# ## The method
#
# `PerImage` is the base class of methods that choose before the decoder, image by image. `choose` gets the embeddings
# of an image's tokens, `[n, hidden]`, and returns the indices of those that stay, in order.
#
# The class is a frozen dataclass, and its fields are the method's parameters. `keep` is a share or a number of
# tokens; `image.budget` makes a number of either. A share `even` of them is not chosen by the idea but evenly spaced;
# it is 0 for now. `@register` gives the class a name in the notation: its own, in lower case.


# %%
@register
@dataclass(frozen=True)
class Unusual(PerImage):
    """Keep the visual tokens that differ most from the mean of their image."""

    summary = "Keeps the tokens that differ most from the mean of their image"
    budget_parameter = "keep"

    keep: int | float = 0.5
    even: float = 0.0

    def choose(self, image: ImageTokens) -> ImageChoice:
        count = image.budget(self.keep)
        embeddings = image.embeddings.float()
        distance = (embeddings - embeddings.mean(0)).norm(dim=-1)
        spaced = round(self.even * count)
        distance[torch.arange(spaced) * image.n // max(1, spaced)] = torch.inf
        return ImageChoice(distance.topk(count).indices.sort().values)


# %% [markdown]
# ## Does it do what it should?
#
# First, look at it. A trace has the kept tokens, and an overlay draws them.

# %%
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
seen = image_as_seen(inputs["pixel_values"][0], processor.image_processor)


def look(method):
    with vistrim.trim(model, method, trace=True) as run:
        output = model.generate(**inputs, max_new_tokens=100)
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    print(answer.replace(" and ", "\nand "))
    return draw_overlay(seen, (12, 12), [("48 of 144 stay", run.report.trace.processed(0, 0))]).quantize(64)


look("unusual:keep=48")

# %% [markdown]
# The picture is what we hoped for, and the answer is a failure: a picture of the kept tokens is no evidence. It seems
# that this model needs background, too. So let half of the tokens be evenly spaced:

# %%
look("unusual:keep=48,even=0.5")

# %% [markdown]
# Six of seven shapes are right now. This is one image, so the comparison below has the last word.
#
# Second, a method that keeps everything must change nothing, bit for bit. This catches an index that is off by one.

# %%
untouched = model(**inputs).logits
with vistrim.trim(model, "unusual:keep=1.0"):
    everything = model(**inputs).logits

untouched.equal(everything)

# %% [markdown]
# Third, a wrong choice is an error and not a wrong answer.


# %%
@dataclass(frozen=True)
class Twice(PerImage):
    """Keep the first token twice, which is a mistake."""

    def choose(self, image: ImageTokens) -> ImageChoice:
        return ImageChoice(image.embeddings.new_zeros(2).long())


try:
    with vistrim.trim(model, Twice()):
        model.generate(**inputs, max_new_tokens=1)
except vistrim.MethodError as error:
    print(error)

# %% [markdown]
# ## Is it any good?
#
# Compare it at one budget with methods that cost as little. `budget_parameter` above told `vistrim.at_budget` what to
# set.

# %%
names = ["unusual", "unusual:even=0.5", "uniform", "random"]
methods = {name: vistrim.at_budget(name, model, tokens=0.33) for name in names}
vistrim.evaluate(model, processor, methods, questions("reference", "short", limit=3))

# %% [markdown]
# The idea beats chance, but not even spacing, which costs nothing and was made for no kind of image. Whether the
# mixture helps cannot be told from 27 questions: its interval and that of the first version overlap almost entirely.
# An idea is worth something when it holds on a model, and on questions, for which it was not made.
#
# ## Next
#
# * Other base classes choose before a layer, at several layers, or while decoding: see
#   [Write a method](../docs/guides/write-a-method.md).
# * With an entry point, the class works in every command: `vistrim eval --method unusual --budget tokens=0.33`.
# * To add a method to vistrim itself, see [Contributing](../CONTRIBUTING.md#a-new-method).
