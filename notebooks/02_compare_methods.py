# %% [markdown]
# # Compare methods at one budget
#
# Which visual tokens can a model do without? Every method has its own answer, and its own parameters: a share to
# keep, a share to drop at each cut, a number per image. A comparison is fair only at equal cost. This notebook sets
# seven methods to the same *budget* and asks them the same questions.

# %%
import matplotlib.pyplot as plt

import vistrim
from vistrim.reference.suites import questions

model, processor = vistrim.load("reference")

# %% [markdown]
# ## One budget
#
# The budget is 33 % of the visual tokens per layer, averaged over the layers of the decoder. `vistrim.at_budget`
# finds the value of a method's parameter that reaches it, without running the model. FastV computes all tokens up to
# its cut, so it has to keep fewer behind it than a method that selects before the first layer.

# %%
names = ["st3", "fastv", "pyramiddrop", "divprune", "vispruner:positions=original", "uniform", "random"]
methods = {name.split(":")[0]: vistrim.at_budget(name, model, tokens=0.33) for name in names}

for name, found in methods.items():
    print(f"{name:12} reaches {100 * found.reached:.1f} %  with  {found}")

# %% [markdown]
# ## The same questions
#
# `vistrim.evaluate` asks the untouched model and every method. Here it asks three questions of each of nine kinds,
# such as "What color is the star?" and "How many circles are there?", about scenes that the model has not seen in
# training.
#
# *Retained* is the accuracy divided by the untouched model's, with its 95 % interval. *Agree* is the share of answers
# that are word for word those of the untouched model. *Tokens* confirms the budget: it was measured, not set.

# %%
found = vistrim.evaluate(model, processor, methods, questions("reference", "short", limit=3))
found

# %% [markdown]
# ## A plot
#
# The result is data: one row per method, with figures for each group of tasks.

# %%
figures = {row.label: row.groups["Short answers"] for row in found.rows}
ordered = sorted(figures, key=lambda label: figures[label].accuracy)

plt.figure(figsize=(6, 3))
for place, label in enumerate(ordered):
    low, high = figures[label].accuracy_interval
    plt.plot([100 * low, 100 * high], [place, place], color="lightsteelblue", linewidth=7)
    plt.plot(100 * figures[label].accuracy, place, "o", color="navy")
plt.yticks(range(len(ordered)), ordered)
plt.xlabel("accuracy, %, with 95 % interval")
plt.title("27 questions, 33 % of the visual tokens")
plt.show()

# %% [markdown]
# ## How to read it
#
# **The intervals are wide.** With 27 questions, only large differences mean anything. More questions are one argument
# away (`limit=100`), and `out="results"` saves the answers, so that an evaluation can be interrupted and extended.
#
# **Keep `random` and `uniform` in every comparison.** They read nothing and cost nothing. A method that stays below
# them has chosen worse than chance, and that happens: layers 1 and 2 of `reference` rank worse than chance, and its
# shapes are large enough for evenly spaced tokens to hit all of them. Photographs are another matter. The result to
# rely on is that of your own model on your own questions: `found = vistrim.evaluate(model, processor, methods,
# "mine.jsonl")`.
#
# [All methods at equal tokens](../docs/common-table.md) has the full table for `reference`, and
# [Evaluate](../docs/guides/evaluation.md) the format of the questions and the definition of each figure.
