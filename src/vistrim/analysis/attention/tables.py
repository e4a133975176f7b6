"""The figures of an analysis as tables, and their definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vistrim._utils.tables import Table
from vistrim.analysis.attention.measures import SINK_FACTOR
from vistrim.analysis.attention.names import BASELINES
from vistrim.analysis.attention.reading import ROWS
from vistrim.analysis.attention.summary import ALL

DEFINITIONS = f"""\
Layers are counted from 0. Attention is the softmax in float32, mean over heads. "Last" is the row of the last prompt
token, "question" the mean over all rows of the prompt's text after the last image (including the last prompt token),
"answer" the mean over the rows of the generated tokens. The answer is the untouched model's own greedy answer.

* **on visual tokens**: share of the attention that falls on visual tokens
* **top draws**: of the attention on visual tokens, the share that falls on the top, the share `keep` of the visual
  tokens that are attended most; uniform attention gives it the share `keep`
* **divergence**: Jensen-Shannon divergence of the last rows of two layers, in bits from 0 (equal) to 1 (disjoint), for
  whole rows and for the part on visual tokens alone. If it is small, the later layer is "lazy"
* **overlap**: share of one layer's top that is also in the other layer's top; the value by chance is `keep`
* **from step, from layer, from prompt**: during generation, the share of the top that was in the top one step earlier,
  one layer earlier, and at the last prompt token
* **other question**: share of the top that is also in the top when another question is asked about the same image
* **sinks**: a visual token is a sink of a layer if it receives at least {SINK_FACTOR} times the mean attention per
  visual token from the question's rows, for this question and another one; it is lasting if it is a sink in at least
  half of the layers. The threshold on mean attention received follows arXiv 2410.10781, where it is absolute; it is
  relative here because the attention per visual token depends on their number. arXiv 2503.03321 describes visual tokens
  that draw attention independent of the text, and finds them by hidden states instead
* **rankings**: the layer ranks the visual tokens, and all but the top are removed from the *next* layer on. Kept: share
  of the answers in which every greedy token equals the untouched model's when its answer is read (teacher forcing); the
  95 % bootstrap interval by image is in analysis.json; bold where a baseline (uniform, random, none) keeps more. KL:
  divergence of the next-token distribution from the untouched model's, in nats, mean over the tokens of each answer;
  analysis.json also has that of the first token
* last, question: attention received at the layer; -sum: summed over the layers up to it; -values: times the norm of the
  head's value (arXiv 2602.00247); uniform: evenly spaced; random: one draw per question; none: no visual token stays"""

_SHOWN_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128)


def tables(figures: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Table]:
    """All tables of an analysis: attention for all questions, rankings for each group."""
    groups = figures["groups"]
    found = [_attention(groups[ALL]), _similarity(groups[ALL])]
    # Answers of different groups differ in length.
    alike = {name: group for name, group in groups.items() if name != ALL} or groups
    found += [table for name, group in alike.items() for table in _steps(name, group)]
    for name, group in groups.items():
        if group["rankings"]:
            found += _worth(name, group["rankings"], settings["layers"])
    return found


def _attention(group: Mapping[str, Any]) -> Table:
    on, sinks = group["on_visual"], group["sinks"]
    return Table(
        f"Attention on visual tokens by layer, {group['questions']} questions",
        ("layer", "last", "question", "answer", *(f"top draws, {name}" for name in ROWS), "sinks", "sinks draw"),
        [
            (
                str(layer),
                _share(on["last"][layer]),
                _share(on["question"][layer]),
                _share(on["answer"][layer] if on["answer"] else None),
                *(_share(group["top_draws"][name][layer]) for name in ROWS),
                f"{sinks['count'][layer]:.1f}",
                _share(sinks["draws"][layer]),
            )
            for layer in range(len(on["last"]))
        ],
    )


def _similarity(group: Mapping[str, Any]) -> Table:
    steps, other = group["steps"], group["other_question"]
    rows = []
    for layer in range(1, len(group["divergence"]["row"])):
        rows.append(
            (
                f"{layer - 1}, {layer}",
                *(_number(group["divergence"][name][layer - 1][layer]) for name in ("row", "visual")),
                *(_share(group["overlap"][name][layer - 1][layer]) for name in ROWS),
                _share(steps["kept_from_layer"][layer] if steps["kept_from_layer"] else None),
                _share(steps["kept_from_step"][layer] if steps["kept_from_step"] else None),
                *(_share(other[name][layer] if other else None) for name in ROWS),
            )
        )
    return Table(
        "Each layer compared with the previous one",
        (
            "layers",
            "divergence of rows",
            "on visual tokens",
            *(f"overlap, {name}" for name in ROWS),
            "from layer",
            "from step",
            *(f"other question, {name}" for name in ROWS),
        ),
        rows,
    )


def _steps(name: str, group: Mapping[str, Any]) -> Iterator[Table]:
    for title, curve in (
        ("Attention on visual tokens over the answer", group["on_visual"]["steps"]),
        ("Share of the last prompt token's top that is still in the top", group["steps"]["kept_from_prompt"]),
    ):
        shown = [step for step in _SHOWN_STEPS if step < len(curve["answers"])]
        if len(shown) < 2:
            continue
        yield Table(
            f"{title}: {name}",
            ("layer", *(f"step {step}" for step in shown)),
            [(str(layer), *(_share(values[step]) for step in shown)) for layer, values in enumerate(curve["mean"])],
        )


def _worth(name: str, rankings: Mapping[str, Any], layers: Sequence[int]) -> Iterator[Table]:
    names = list(rankings)
    kept = {ranking: rankings[ranking]["kept"] for ranking in names}
    for title, figure, write in (
        (f"Answers kept: {name}", "kept", _share),
        (f"KL from the untouched model: {name}", "mean", _number),
    ):
        rows, flagged = [], set()
        for number, layer in enumerate(layers):
            rows.append((str(layer), *(write(rankings[ranking][figure][number]) for ranking in names)))
            if figure == "kept":
                best = max((kept[ranking][number] for ranking in BASELINES if ranking in kept), default=1.0)
                flagged |= {
                    (number, 1 + place)
                    for place, ranking in enumerate(names)
                    if ranking not in BASELINES and kept[ranking][number] < best
                }
        yield Table(title, ("ranked by layer", *names), rows, frozenset(flagged))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value == 0 or value >= 0.0005 else "< 0.001"
