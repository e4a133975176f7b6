"""Models that come with vistrim, found by name, as data of this package or of an additional one."""

from __future__ import annotations

from pathlib import Path

#: Models in this package, and the command that trains each.
TRAINED_BY = {
    "reference": "training.reference.train --size base",
    "reference-small": "training.reference.train --size small",
    "reference-quecc-16": "training.reference.train_quecc --tokens 16",
}
#: Shipped as a difference to another model, see ``vistrim.tuned_model``.
TUNED_FROM = {"reference-quecc-16": "reference"}
#: Assembled on the user's machine, see ``vistrim.reference_lm``.
PUT_TOGETHER = "reference-lm"
NAMES = (*TRAINED_BY, PUT_TOGETHER)
_WEIGHTS = Path(__file__).parent / "reference" / "weights"


def shown_name(checkpoint: str) -> str:
    """Return the name of a reference model in place of its folder, which depends on the machine.

    Parameters
    ----------
    checkpoint : str
        Folder or Hugging Face id of a model.

    Returns
    -------
    str
        The name; any other folder or id unchanged.
    """
    path = Path(checkpoint)
    return path.name if path.is_absolute() and path.name in NAMES else checkpoint


def weights_path(name: str) -> Path:
    """Return the folder of a reference model. It is created if the model has to be assembled first.

    Parameters
    ----------
    name : str
        One of ``NAMES``.

    Returns
    -------
    Path
        Folder for ``from_pretrained``.

    Raises
    ------
    ValueError
        If there is no reference model of that name.
    FileNotFoundError
        If its weights are not shipped with this version.
    LoadError
        If a part of ``reference-lm`` is missing, or the folder of an assembled model cannot be written.
    """
    if name not in NAMES:
        raise ValueError(f"no reference model {name!r}: choose {', '.join(NAMES)}")
    if name == PUT_TOGETHER:
        from vistrim.reference_lm import checkpoint

        return checkpoint()
    path = _WEIGHTS / name
    if not (path / "config.json").exists():
        raise FileNotFoundError(
            f"the weights of {name} are not shipped with this version: train them with "
            f"`python -m {TRAINED_BY[name]} --export-to DIR` in the source tree, and load DIR"
        )
    if name in TUNED_FROM:
        from vistrim.tuned_model import assembled

        return assembled(path, _WEIGHTS / TUNED_FROM[name])
    return path
