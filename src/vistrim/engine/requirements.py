"""What a method asks of a model, checked before anything is installed."""

from vistrim.architectures import ModelSpec
from vistrim.architectures.image_layouts import unknown
from vistrim.engine.inputs.shrinking import Shrinking
from vistrim.engine.inputs.tower import VisionReads
from vistrim.engine.passes.layer_cut import LayerCuts
from vistrim.engine.passes.method_answers import check_structure
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.composition import Composition
from vistrim.methods.base.method import Method

INSTEAD = "use a method that ranks inside the language model, such as fastv"


def vision_reads(method: Method, spec: ModelSpec) -> VisionReads:
    """Find out what of the vision tower a fitted method asks for.

    Raises
    ------
    UnsupportedModelError
        If the model cannot give them; with another method to use.
    ValueError
        If the method's parameters do not fit the tower.
    """
    name = _acting(method, "input").name
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
    """Find out how a method has images shrunk before the vision tower; None: it has not, or is not fitted.

    Raises
    ------
    UnsupportedModelError
        If the model's images cannot be shrunk behind its processor; with what to do instead.
    """
    name = _acting(method, "input").name
    if not method.shrinks_images:
        return None
    images = spec.images
    if not images.interpolates:
        raise UnsupportedModelError(
            f"{name} shrinks images that all have one grid of patches, each of which becomes a visual token, "
            f"and this model's do not: ask its processor for smaller images ({images.smaller})"
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
    """Refuse a method that ranks by features where the final normalisation is not known.

    Raises
    ------
    UnsupportedModelError
        With another method to use.
    """
    name = _acting(method, "prefill").name
    if method.reads_features and spec.norm is None:
        raise UnsupportedModelError(
            f"{name} needs the normalisation behind the decoder's last layer, and vistrim does not find this "
            "model's: use fastv instead"
        )


def layer_cuts(method: Method, spec: ModelSpec) -> LayerCuts:
    """Ask a fitted method what the layers leave out, and check that this can be left out of these layers.

    Raises
    ------
    UnsupportedModelError
        If a layer is not made of the parts that are known.
    """
    found = method.structure(spec.facts)
    check_structure(found, method, spec)
    if found is None:
        return (None,) * len(spec.layers)
    # Few methods cut inside the layers.
    from vistrim.engine.structured.cuts import find_cuts

    return find_cuts(found, method.name, spec)


def check_grid(method: Method, spec: ModelSpec) -> None:
    """Refuse a method that needs a grid of visual tokens, if this model's never form one, or it is not known.

    Raises
    ------
    UnsupportedModelError
        With other methods to use.
    """
    name = _acting(method, "input").name
    images = spec.images
    formless = images.grid is None and (images.tokens is not None or images.shapes is unknown)
    if method.needs_grid and formless:
        raise UnsupportedModelError(
            f"{name} needs a grid of visual tokens, and this model's form none that vistrim knows: "
            "use uniform or random instead"
        )


def check_positions(method: Method, spec: ModelSpec) -> None:
    """Refuse methods that give consecutive positions to a model whose positions have several axes.

    Raises
    ------
    ValueError
        With the fix.
    """
    for part in method.parts if isinstance(method, Composition) else (method,):
        if part.renumbers:
            check_axes(part.name, spec)


def check_axes(name: str, spec: ModelSpec) -> None:
    """Refuse consecutive positions where positions have several axes; ``name`` is that of the method that wants them.

    Raises
    ------
    ValueError
        With the fix.
    """
    if spec.rope_axes > 1:
        raise ValueError(
            f"{name} would give the tokens that are left consecutive positions, and in this model a position is a "
            f'time, a row and a column (M-RoPE): pass positions="original" (on the command line: '
            f"{name}:positions=original)"
        )


def _acting(method: Method, stage: str) -> Method:
    """Return the part of a composition that acts in a stage, or the method itself."""
    return method.part(stage) if isinstance(method, Composition) else method
