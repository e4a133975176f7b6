"""FLOPs and KV bytes of a generation, with and without a method."""

from vistrim._utils.labels import UNTOUCHED
from vistrim.benchmark.results import Cost
from vistrim.benchmark.subject import Subject
from vistrim.core import costs
from vistrim.engine import ModelSpec
from vistrim.engine.report.trim_report import TrimReport
from vistrim.engine.report.untrimmed import UntrimmedCache
from vistrim.methods import Method


def untouched_cost(subject: Subject, spec: ModelSpec, new_tokens: int) -> Cost:
    """Cost of the untouched model, from its shape.

    Parameters
    ----------
    subject : Subject
        Model and prompts.
    spec : ModelSpec
        Description of the model by `vistrim.engine.describe`.
    new_tokens : int
        Tokens generated per sample; the last one is never stored.
    """
    shape, cache = spec.decoder_shape, UntrimmedCache(spec)
    batch, prompt = subject.inputs["input_ids"].shape
    return Cost(
        notation=UNTOUCHED,
        average_tokens=float(subject.visual_tokens),
        prefill_flops=float(batch * costs.prefill_flops(shape, [prompt] * shape.layers)),
        kv_bytes=[batch * cache.nbytes(prompt + step) for step in range(new_tokens)],
        weight_bytes=subject.weight_bytes,
        stages=0,
    )


def trimmed_cost(report: TrimReport, method: Method, spec: ModelSpec, weight_bytes: int) -> Cost:
    """Cost of a method, from the report on one of its runs.

    Parameters
    ----------
    report : TrimReport
        Report on a generation for a batch of similar samples.
    method : Method
        Method of the run.
    spec : ModelSpec
        Description of the model by `vistrim.engine.describe`.
    weight_bytes : int
        See `vistrim.benchmark.subject.Subject`.
    """
    # The time of a vision tower or guide model does not depend on the number of cuts.
    elsewhere = method.reads_vision or method.ranks_by == "guide"
    layers = () if elsewhere else method.fitted(spec.facts).prefill_layers(spec.decoder_shape.layers)
    return Cost(
        notation=report.method,
        average_tokens=report.average_tokens,
        prefill_flops=float(report.prefill_flops + sum(report.method_flops)),
        kv_bytes=report.kv_bytes_per_step,
        weight_bytes=weight_bytes,
        stages=len(layers) + ("input" in method.stages and not elsewhere),
    )
