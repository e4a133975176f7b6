"""Ship a tuned model as a difference to the model that it was tuned from.

    python -m training.reference.pack_difference FOLDER --base src/vistrim/reference/weights/reference

replaces ``model.safetensors`` in the folder of the tuned model by ``difference.safetensors``, which
`vistrim.tuned_model` reads. The weights change by the rounding: measure the model again.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import load_file

from vistrim._utils.files import save_whole
from vistrim.tuned_model import FILE, WEIGHTS, rounded


def pack(
    folder: Annotated[Path, typer.Argument(help="folder of the tuned model")],
    base: Annotated[Path, typer.Option(help="folder of the model that it was tuned from")],
    levels: Annotated[int, typer.Option(help="steps in the standard deviation of a difference")] = 3,
) -> None:
    """Replace the weights of a tuned model by a rounded difference."""
    before, after = load_file(base / WEIGHTS), load_file(folder / WEIGHTS)
    if before.keys() != after.keys():
        raise typer.BadParameter(f"{folder} has other weights than {base}")
    names = [name for name in after if not torch.equal(before[name], after[name])]
    changed = {name: rounded(before[name], after[name], levels) for name in names}
    steps = {name: repr(step) for name, (_, step) in changed.items()}
    save_whole(folder / FILE, {name: whole for name, (whole, _) in changed.items()}, {"base": base.name, **steps})
    (folder / WEIGHTS).unlink()


if __name__ == "__main__":
    typer.run(pack)
