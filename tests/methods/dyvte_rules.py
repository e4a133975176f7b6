"""DyVTE for the dense reference, from the formulas. No code of the package is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import gelu

from tests.methods.dense_reference import Dense, Row, Rule
from tests.methods.training_free_rules import visual_rows


@dataclass
class DyVTE(Rule):
    """Routers by the names of their file: ``layers.{l}.w1`` ``[width, 2 D]`` and ``layers.{l}.w2`` ``[2, width]``.

    Attributes
    ----------
    margins : list of float
        How clearly each router that was asked decided: the distance of its logits.
    """

    routers: Mapping[str, Tensor]
    margins: list[float] = field(default_factory=list)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        visual = visual_rows(rows)
        if layer == 0 or not visual:
            return rows
        states = [row.hidden for row in rows[visual[-1] + 1 :]]
        last, others = states[-1], states[:-1] or states
        u = torch.cat([sum(others) / len(others), last])
        w1, w2 = self.routers[f"layers.{layer - 1}.w1"], self.routers[f"layers.{layer - 1}.w2"]
        stay, leave = (w2 @ gelu(w1 @ u)).tolist()
        self.margins.append(abs(leave - stay))
        return [row for row in rows if row.visual is None] if leave > stay else rows
