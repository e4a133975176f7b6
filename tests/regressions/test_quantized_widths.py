"""Tiny models that are quantized have widths that the kernels of every processor take, whatever this one has.

With AVX-512 BF16 bitsandbytes packs the weights of 4-bit layers, and asserts while a model answers that they can be
packed. Elsewhere any width works, so that nothing else would show it.
"""

from pathlib import Path

import pytest

import tests
from tests.runtimes import few_bits


@pytest.mark.parametrize("name", few_bits.NAMES)
def test_every_4_bit_layer_can_be_packed(name):
    layers = {
        path: (layer.out_features, layer.in_features)
        for path, layer in few_bits.shared(name, "nf4").named_modules()
        if type(layer).__name__ == "Linear4bit"
    }
    assert len(layers) > 20
    unfit = {path: sizes for path, sizes in layers.items() if sizes[0] % few_bits.OUTPUTS or sizes[1] % few_bits.INPUTS}
    assert not unfit


def test_no_other_tests_quantize_models():
    own = {Path(few_bits.__file__), Path(__file__)}
    words = ("BitsAndBytesConfig", "quantization_config=")
    files = set(Path(tests.__file__).parent.rglob("*.py")) - own
    assert not [file for file in files if any(word in file.read_text(encoding="utf-8") for word in words)]
