"""Methods with a single cut before one decoder layer."""

from abc import abstractmethod
from dataclasses import dataclass

from vistrim.core.model_facts import ModelFacts
from vistrim.methods.base.checks import check_layer, check_positions
from vistrim.methods.base.method import Method, Positions


@dataclass(frozen=True)
class OneCut(Method):
    """Base class of methods whose `select_prefill` is called before one layer only.

    Raises
    ------
    ValueError
        If ``layer`` is not a whole number of at least 1, or ``positions`` is unknown.
    """

    stages = ("prefill",)

    @property
    @abstractmethod
    def layer(self) -> int:
        """First layer (0-based, at least 1) that runs without the removed tokens."""

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """RoPE positions of the remaining tokens."""

    def __post_init__(self) -> None:
        if type(self.layer) is not int or self.layer < 1:
            raise ValueError(
                f"layer={self.layer}: must be a whole number, at least 1; to choose tokens before the decoder use a "
                "method that acts there, such as random"
            )
        check_positions(self.positions)

    def fitted(self, model: ModelFacts) -> Method:
        """Check that the model has the layer of the cut.

        Parameters
        ----------
        model : ModelFacts
            Sizes and properties of the model.

        Returns
        -------
        Method
            The method itself.

        Raises
        ------
        ValueError
            If the cut is after the last layer.
        """
        check_layer("layer", self.layer, model.decoder.layers)
        return self

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layer of the cut.

        Parameters
        ----------
        depth : int
            Number of decoder layers.

        Returns
        -------
        tuple of int
            One decoder layer, 0-based.
        """
        return (self.layer,)
