# %% [markdown]
# # Fit ST³ to a model
#
# ST³ has a closed form: cut at a fixed stride, and drop the same share each time. It is the same for every model, but
# models differ in which of their layers rank visual tokens well. A *fitted schedule* has the cuts, the ranking and
# the annealing that suit one model at one budget. This notebook shows what such a schedule is worth, and fits a small
# one.

# %%
import tempfile
from pathlib import Path

import vistrim
from vistrim.calibration.st3.calibrating import fit_schedule
from vistrim.reference.suites import questions

model, processor = vistrim.load("reference")

# %% [markdown]
# ## A fitted schedule
#
# Schedules for three budgets come with `reference`, and `schedule=auto` takes the one for half of the FLOPs. Below, the
# closed form is set to the same budget, for the lengths of this prompt. Both methods then process it.

# %%
question = [
    {"type": "image", "path": "../examples/images/scene-3.png"},
    {"type": "text", "text": "What color is the star?"},
]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": question}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device)
closed_form = vistrim.at_budget("st3", model, flops=0.5, inputs=inputs)
methods = {"closed form": closed_form, "fitted": "st3:schedule=auto"}

for label, method in methods.items():
    with vistrim.trim(model, method) as run:
        model.generate(**inputs, max_new_tokens=8)
    held = [visual for (visual,) in run.report.visual_tokens_per_layer]
    print(f"{label:11}: {100 * run.report.flops_fraction:.0f} % of the FLOPs, visual tokens per layer {held}")

# %% [markdown]
# The closed form cuts before layers 1, 6 and 11, and keeps some tokens to the end. In `reference`, no layer from 7 on
# needs them ([attention study](../docs/attention.md)), which the closed form cannot know. The fitted schedule drops a
# fifth of the tokens at layer 1, and all of them at layer 7. At the same cost, the layers that read the image therefore
# have more. The difference shows in descriptions, on questions that the search has not seen:

# %%
asked = questions("reference", "count,relation,description", limit=8)
vistrim.evaluate(model, processor, methods, asked)

# %% [markdown]
# ## Fit one
#
# The search needs questions, but no answers. The untouched model answers once. Every candidate then reads these
# answers, and loses as much as its predictions differ from the untouched model's. Candidates are scaled to the budget
# first, so that all of them cost the same. Most are dropped after a few prompts; the best are tried on all.
#
# To be quick, this search has four prompts, and `form="st3"` limits it to the start layers and strides of the closed
# form. A real one has at least 32 prompts and the default form, which may cut anywhere. That takes two minutes for
# `reference`.

# %%
prompts = questions("reference", "color,description", split="validation", limit=2)
schedule = fit_schedule(model, processor, prompts, "flops=0.5", form="st3", prompts=2)

for layer, share in zip(schedule.cuts.layers, schedule.cuts.shares, strict=True):
    print(f"from layer {layer:2}: {100 * share:4.1f} % of the visual tokens")

evidence = schedule.made_with["evidence"]
print(f"\n{evidence['methods_tried']} methods tried on {evidence['prompts']} prompts")
print(f"loss: {evidence['loss']['lost']:.3f}, and {evidence['loss_of_default_st3']['lost']:.3f} with the default cuts")

# %% [markdown]
# It ends at the default start layer and stride, which were chosen by such searches on this model and a larger one.
# Four prompts can be fitted by luck, so these losses promise nothing for other questions.
#
# ## Use it
#
# A schedule is a small JSON file. It names the model that it was made for, and is refused on any other.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "st3.json"
    schedule.write(file)
    with vistrim.trim(model, vistrim.ST3(schedule=str(file))) as run:
        model.generate(**inputs, max_new_tokens=8)

print([visual for (visual,) in run.report.visual_tokens_per_layer])

# %% [markdown]
# For a model of your own, one command does all of this, resumes after an interruption, and prints the evidence:
#
# ```console
# $ vistrim calibrate st3 --model llava-hf/llava-1.5-7b-hf --data mine.jsonl --budget flops=0.5 --out st3.json
# $ vistrim eval --model llava-hf/llava-1.5-7b-hf --data others.jsonl --method st3:schedule=st3.json --method uniform
# ```
#
# The second one uses other questions, and a baseline. [Calibration](../docs/guides/calibration.md) describes the
# search, its results on `reference`, and what other methods can be fitted to.
