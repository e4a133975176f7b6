"""Results of a benchmark."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """One timed generation of the whole batch.

    Attributes
    ----------
    method : str
        Label of the method, or `UNTOUCHED`.
    round : int
        Number of the round, from 0; every method runs once in each round.
    encode_seconds : float
        Vision tower and projector.
    first_token_seconds : float
        From the call of ``generate`` to its first token: encoding, selection, prefill.
    select_seconds : float
        The method's own work up to the first token (part of ``first_token_seconds``), including its guide model.
    step_seconds : list of float
        Time of each decoding step, in order.
    peak_bytes : int or None
        Peak memory during the run beyond the memory held before it; None if the platform does not report it.
    """

    method: str
    round: int
    encode_seconds: float
    first_token_seconds: float
    select_seconds: float
    step_seconds: list[float]
    peak_bytes: int | None

    @property
    def prefill_seconds(self) -> float:
        """From the encoded images to the first token, including selection."""
        return self.first_token_seconds - self.encode_seconds

    @property
    def step_mean(self) -> float | None:
        """Mean of the decoding steps; None if there was none."""
        return sum(self.step_seconds) / len(self.step_seconds) if self.step_seconds else None

    @property
    def total_seconds(self) -> float:
        """The whole generation."""
        return self.first_token_seconds + sum(self.step_seconds)


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of a method, for the whole batch; the same in every round.

    Attributes
    ----------
    notation : str
        The method with all parameters, or `UNTOUCHED`.
    average_tokens : float
        Visual tokens per layer and sample in prefill, mean over layers.
    prefill_flops : float
        Decoder FLOPs in prefill, plus those of the method's own networks.
    kv_bytes : list of int
        Bytes that the KV cache holds after prefill and after each decoding step.
    weight_bytes : int
        Bytes of weights that a decoding step reads.
    stages : int
        Number of selections in prefill, before the decoder and before its layers; 0 for methods that rank by a vision
        tower or a guide model, whose time does not depend on the number of cuts.
    """

    notation: str
    average_tokens: float
    prefill_flops: float
    kv_bytes: list[int]
    weight_bytes: int
    stages: int

    @property
    def step_bytes(self) -> float:
        """Minimum of bytes that a decoding step reads, mean over the steps: weights and KV cache."""
        held = self.kv_bytes[1:] or self.kv_bytes
        return self.weight_bytes + sum(held) / len(held)


@dataclass(frozen=True)
class Speedup:
    """Speed-up of one phase: time of the untouched model divided by time of the trimmed model.

    Attributes
    ----------
    ratio : float
        Median of the ratios within each round.
    limit : float or None
        Speed-up bound: ratio of FLOPs (prefill) or bytes read (decoding); None if the phase has no bound.
    rounds : tuple of float
        The ratio in each round.
    """

    ratio: float
    limit: float | None = None
    rounds: tuple[float, ...] = ()

    @property
    def share(self) -> float | None:
        """Efficiency: speed-up divided by its bound; None if the phase has no bound."""
        return None if self.limit is None else self.ratio / self.limit


@dataclass(frozen=True)
class Row:
    """Figures of one method; times are medians over the rounds, in seconds.

    Attributes
    ----------
    label : str
        Label of the method, or `UNTOUCHED`.
    cost : Cost
        FLOPs and bytes.
    rounds : int
        Number of complete rounds.
    encode, select, prefill, step, total : float
        Vision tower and projector; the method's own work (part of encoding and prefill); from encoded images to first
        token; a decoding step (mean over a run's steps; None if there is none); the whole generation.
    peak_bytes : int or None
        Peak memory beyond the memory held before, largest of the rounds.
    speedups : dict of str to Speedup
        Speed-ups of the phases "encode", "prefill", "first token", "step" and "total".
    """

    label: str
    cost: Cost
    rounds: int
    encode: float
    select: float
    prefill: float
    step: float | None
    total: float
    peak_bytes: int | None
    speedups: dict[str, Speedup] = field(default_factory=dict)
