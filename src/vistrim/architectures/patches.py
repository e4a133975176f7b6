"""From the tokens of a vision tower to visual tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vistrim.architectures.spec import Arrange


def one_to_one(skip: int) -> Arrange:
    """Every token of the tower is a visual token, except for the first ``skip`` of each picture."""

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        return torch.cat([part[:, skip:].flatten(0, 1) for part in parts])

    return arrange
