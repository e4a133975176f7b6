"""Requirements of a method, checked against the model before any hook is installed."""

from vistrim.architectures import ModelSpec
from vistrim.architectures.image_layouts import unknown
from vistrim.engine.inputs.shrinking import Shrinking
from vistrim.engine.inputs.tower import VisionReads
from vistrim.engine.passes.layer_cut import LayerCuts
from vistrim.engine.passes.method_answers import check_structure
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.composition import methods_in, part_at
from vistrim.methods.base.method import Method

INSTEAD = "use a method that ranks inside the language model, such as fastv"


def vision_reads(method: Method, spec: ModelSpec) -> VisionReads:
    """Find the parts of the vision tower that a fitted method reads.

    Raises
    ------
    UnsupportedModelError
        If the model does not have them. The message names another method.
    ValueError
        If the method's parameters do not fit the tower.
    """
    name = part_at(method, "input").name
    if not method.reads_vision:
        return VisionReads()
    tower = spec.images.tower
    if tower is None:
        raise UnsupportedModelError(
            f"{name} reads the vision tower, and vistrim does not know how the patches of this model's tower "
            f"become visual tokens: {INSTEAD}"
        )
    block = tower.feature_block
    reads = VisionReads(
        method.vision_blocks(block),
        method.vision_states(block),
        method.vision_keys(block),
        method.reads_class_token and tower.has_cls,
    )
    if not {*reads.attention, *reads.states, *reads.keys, block} <= set(range(len(tower.blocks))):
        raise UnsupportedModelError(
            f"{name} reads blocks of the vision tower, up to the feature block, that this model does not "
            f"have: {INSTEAD}"
        )
    return reads


def shrinking(method: Method, spec: ModelSpec) -> Shrinking | None:
    """Describe how a method downsamples images before the vision tower. None: it does not, or is not fitted.

    Raises
    ------
    UnsupportedModelError
        If the images of the model cannot be downsampled after its processor. The message names an alternative.
    """
    name = part_at(method, "input").name
    if not method.shrinks_images:
        return None
    images = spec.images
    if not images.interpolates:
        raise UnsupportedModelError(
            f"{name} needs images with a common grid of patches and one visual token per patch, which this model "
            f"does not have: ask its processor for smaller images ({images.smaller})"
        )
    grid, pixels, tokens = images.grid, images.pixels, images.tokens
    assert grid is not None
    assert pixels is not None
    assert tokens is not None
    if method.shrunk_grid is None:
        return None
    beside = images.tower.has_cls if images.tower is not None else 0
    return Shrinking(method.shrunk_grid, pixels // grid[0], tokens, beside)


def check_norm(method: Method, spec: ModelSpec) -> None:
    """Refuse a method that ranks by features if the final normalization is not known.

    Raises
    ------
    UnsupportedModelError
        If it is not known. The message names another method.
    """
    name = part_at(method, "prefill").name
    if method.reads_features and spec.norm is None:
        raise UnsupportedModelError(
            f"{name} needs the normalization after the last decoder layer, which vistrim does not find in this "
            "model: use fastv instead"
        )


def layer_cuts(method: Method, spec: ModelSpec) -> LayerCuts:
    """Get the structural cuts of a fitted method, and check that the layers support them.

    Raises
    ------
    UnsupportedModelError
        If a layer does not have the known structure.
    """
    found = method.structure(spec.facts)
    check_structure(found, method, spec)
    if found is None:
        return (None,) * len(spec.layers)
    # Imported here because few methods cut inside the layers.
    from vistrim.engine.structured.cuts import find_cuts

    return find_cuts(found, method.name, spec)


def check_grid(method: Method, spec: ModelSpec) -> None:
    """Refuse a method that needs a grid of visual tokens if the model has none, or it is not known.

    Raises
    ------
    UnsupportedModelError
        If there is no known grid. The message names other methods.
    """
    name = part_at(method, "input").name
    images = spec.images
    formless = images.grid is None and (images.tokens is not None or images.shapes is unknown)
    if method.needs_grid and formless:
        raise UnsupportedModelError(
            f"{name} needs a grid of visual tokens, and vistrim knows none for this model: "
            "use uniform or random instead"
        )


def check_positions(method: Method, spec: ModelSpec) -> None:
    """Refuse methods that renumber tokens in a model with M-RoPE.

    Raises
    ------
    ValueError
        If positions have several axes. The message names the fix.
    """
    for part in methods_in(method):
        if part.renumbers:
            check_axes(part.name, spec)


def check_axes(name: str, spec: ModelSpec) -> None:
    """Refuse renumbering by the method ``name`` in a model with M-RoPE.

    Raises
    ------
    ValueError
        If positions have several axes. The message names the fix.
    """
    if spec.rope_axes > 1:
        raise ValueError(
            f"{name} would renumber the remaining tokens, but in this model a position is a time, a row and a "
            f'column (M-RoPE): pass positions="original" (on the command line: '
            f"{name}:positions=original)"
        )
