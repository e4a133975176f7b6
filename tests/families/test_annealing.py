"""Other rows than the current token rank while decoding, below and above layers with a sliding window."""

import torch

from tests.closeness import close
from tests.families.masked_reference import REFERENCE, MaskedReference
from tests.families.matrix import FADING, answers, padding_that_counts, prompts
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate, logits
from vistrim import VTA, trim


def test_rankings_equal_the_reference():
    """Windows of every other layer: full when the answer begins."""
    name = "cohere2_vision"
    samples = prompts(name)
    inputs, paddings = FAMILIES[name].batch(samples), padding_that_counts(name, samples)
    for rows in ("answer", "prompt"):
        with trim(shared(name, "sdpa"), VTA("linear", 8, 0.0, decode_rows=rows, interval=1)) as run:
            output = generate(shared(name, "sdpa"), inputs, 7)
        assert run.report.kv_bytes < run.report.kv_bytes_full
        for b, (answer, padding) in enumerate(zip(answers(output, inputs), paddings, strict=True)):
            family, model = FAMILIES[name], shared(name, "eager")
            reference = MaskedReference(family, model, FADING, padding=padding, decode_rows=rows)
            steps = [reference.prefill(samples[b]), *map(reference.decode, answer[:-1])]
            assert close(logits(output)[b], torch.stack(steps), REFERENCE)
