"""Models that come with vistrim: found by name, as data of the package."""

from __future__ import annotations

from pathlib import Path

#: Shipped models, and what trains each.
TRAINED_BY = {
    "reference": "training.reference.train --size base",
    "reference-small": "training.reference.train --size small",
    "reference-quecc-16": "training.reference.train_quecc --tokens 16",
}
NAMES = tuple(TRAINED_BY)
_WEIGHTS = Path(__file__).parent / "reference" / "weights"


def weights_path(name: str) -> Path:
    """Folder of a shipped reference model, as ``from_pretrained`` takes it.

    Parameters
    ----------
    name : str
        One of ``NAMES``.

    Raises
    ------
    ValueError
        If there is no reference model of that name.
    FileNotFoundError
        If its weights are not shipped with this version.
    """
    if name not in NAMES:
        raise ValueError(f"no reference model {name!r}; there are {', '.join(NAMES)}")
    path = _WEIGHTS / name
    if not (path / "config.json").exists():
        raise FileNotFoundError(
            f"the weights of {name} are not shipped with this version; train them with "
            f"`python -m {TRAINED_BY[name]} --export-to DIR` and load DIR"
        )
    return path
