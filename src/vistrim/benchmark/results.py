"""What a benchmark finds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """One timed generation of the whole batch.

    Attributes
    ----------
    method : str
        Label of the method, or `UNTOUCHED`.
    round : int
        From 0; every method runs once in each round.
    encode_seconds : float
        Vision tower and projector.
    first_token_seconds : float
        From the call of ``generate`` to its first token: encoding, selection, prefill.
    select_seconds : float
        The method's own work up to then (part of ``first_token_seconds``), its guide's included.
    step_seconds : list of float
        Each decoding step, in order.
    peak_bytes : int or None
        Most memory held during the run beyond what was held before it; None where the platform does not tell.
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
        """From the encoded images to the first token, selection included."""
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
    """What a method computes and holds, for the whole batch; the same in every round.

    Attributes
    ----------
    notation : str
        The method with all parameters, or `UNTOUCHED`.
    average_tokens : float
        Visual tokens per layer and sample in prefill, mean over layers.
    prefill_flops : float
        Decoder FLOPs in prefill, and those of the method's own networks.
    kv_bytes : list of int
        Bytes that the KV cache holds after prefill and after each decoding step.
    weight_bytes : int
        Bytes of weights that a decoding step reads.
    stages : int
        Times that the method is asked in prefill, before the decoder and before layers of it; 0 where it goes by a
        vision tower or a guide, whose time is no matter of cuts.
    """

    notation: str
    average_tokens: float
    prefill_flops: float
    kv_bytes: list[int]
    weight_bytes: int
    stages: int

    @property
    def step_bytes(self) -> float:
        """Bytes that a decoding step has to read at least, mean over the steps: weights and KV cache."""
        held = self.kv_bytes[1:] or self.kv_bytes
        return self.weight_bytes + sum(held) / len(held)


@dataclass(frozen=True)
class Speedup:
    """Untouched over trimmed time of one phase.

    Attributes
    ----------
    ratio : float
        Median of the ratios within each round.
    limit : float or None
        What the ratio of FLOPs (prefill) or bytes (decoding) allows; None: no limit is stated for this phase.
    rounds : tuple of float
        The ratio in each round.
    """

    ratio: float
    limit: float | None = None
    rounds: tuple[float, ...] = ()

    @property
    def share(self) -> float | None:
        """Share of the limit reached."""
        return None if self.limit is None else self.ratio / self.limit


@dataclass(frozen=True)
class Row:
    """One method against the untouched model; times are medians over the rounds, in seconds.

    Attributes
    ----------
    label : str
        As the method was asked for, or `UNTOUCHED`.
    cost : Cost
        What it computes and holds.
    rounds : int
        Complete rounds behind the figures.
    encode, select, prefill, step, total : float
        Vision tower and projector; the method's own work (part of encoding and prefill); from encoded images to first
        token; a decoding step (mean over a run's steps; None if there is none); everything.
    peak_bytes : int or None
        Most memory beyond what was held before, largest of the rounds.
    speedups : dict of str to Speedup
        Of the phases "encode", "prefill", "first token", "step" and "total".
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
