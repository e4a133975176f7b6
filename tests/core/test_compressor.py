import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.closeness import close
from tests.methods.quecc_weights import compressed
from vistrim.core.compressor import Compressor, CompressorShape, recorded_blocks, token_places


@st.composite
def shapes(draw):
    stride = draw(st.integers(1, 4))
    grid = (stride * draw(st.integers(1, 3)), stride * draw(st.integers(1, 3)))
    heads = draw(st.sampled_from([1, 2, 4]))
    return CompressorShape(grid, stride, width=8, states=draw(st.sampled_from([8, 24])), hidden=12, heads=heads)


def network_and_inputs(shape, seed, images=2, questions=3):
    torch.manual_seed(seed)
    network = Compressor(shape).eval().requires_grad_(False)
    features = torch.randn(images, shape.patches, shape.width)
    states = torch.randn(images, shape.patches, shape.states)
    return network, features, states, torch.randn(images, questions, shape.hidden)


@given(shapes(), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_each_image_has_a_token_for_every_block_and_question(shape, seed):
    network, features, states, questions = network_and_inputs(shape, seed)
    made = network(features, states, questions)
    assert made.shape == (2, 3, shape.tokens, shape.hidden)
    for image in range(2):
        for question in range(3):
            alone = network(features[[image]], states[[image]], questions[[image]][:, [question]])
            assert close(alone[0, 0], made[image, question])


@given(shapes(), st.integers(0, 100), st.data())
@settings(max_examples=25, deadline=None)
def test_a_patch_matters_to_the_token_of_its_block_and_to_no_other(shape, seed, data):
    network, features, states, questions = network_and_inputs(shape, seed)
    patch = data.draw(st.integers(0, shape.patches - 1))
    columns = shape.grid[1]
    row, column = patch // columns // shape.stride, patch % columns // shape.stride
    block = row * (columns // shape.stride) + column
    before = network(features, states, questions)
    others = [token for token in range(shape.tokens) if token != block]
    for changed in (features, states):
        changed[0, patch] = torch.randn_like(changed[0, patch])
        after = network(features, states, questions)
        assert torch.equal(after[:, :, others], before[:, :, others])
        assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0, :, block], before[0, :, block])


@pytest.mark.parametrize("stride", [1, 2, 3, 6])
def test_equals_the_formulas(stride, tmp_path):
    from safetensors.torch import save_file

    shape = CompressorShape((6, 6), stride, width=8, states=16, hidden=12, heads=2)
    network, features, states, questions = network_and_inputs(shape, stride, 1, 1)
    path = tmp_path / "part.safetensors"
    save_file(network.state_dict(), path)
    expected = compressed(str(path), features[0], states[0], questions[0, 0], 6, 2)
    assert close(network(features, states, questions)[0, 0], expected)


@given(shapes())
@settings(max_examples=10, deadline=None)
def test_flops_are_those_of_the_products(shape):
    network, features, states, questions = network_and_inputs(shape, 0, 1, 1)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        network(features, states, questions)
    assert counter.get_total_flops() == shape.flops


@given(shapes())
def test_tokens_take_the_place_of_their_blocks_last_patch(shape):
    places = token_places(shape)
    assert places.sum() == shape.tokens
    assert places[-1]
    rows, columns = (n // shape.stride for n in shape.grid)
    found = places.view(shape.grid).nonzero() // shape.stride
    blocks = (found[:, 0] * columns + found[:, 1]).tolist()
    # In the order of the tokens.
    assert blocks == list(range(rows * columns))


@given(shapes())
def test_a_shape_survives_its_notes(shape):
    assert CompressorShape.read(shape.notes() | {"hidden": str(shape.hidden)}) == shape


@pytest.mark.parametrize(
    ("depth", "blocks"), [(24, (11, 15, 21, 22)), (4, (1, 2, 3)), (2, (0, 1)), (1, (0,)), (27, (13, 17, 24, 25))]
)
def test_states_come_from_the_same_shares_of_the_depth(depth, blocks):
    assert recorded_blocks(depth) == blocks


@pytest.mark.parametrize(
    ("change", "message"), [({"stride": 5}, "stride"), ({"stride": 0}, "stride"), ({"heads": 3}, "heads")]
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    sizes = {"grid": (12, 12), "stride": 3, "width": 8, "states": 8, "hidden": 12, "heads": 2}
    with pytest.raises(ValueError, match=message):
        CompressorShape(**(sizes | change))
