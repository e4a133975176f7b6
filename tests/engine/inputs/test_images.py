"""Images are dealt to the prompts of a batch in order, and every prompt gets exactly the tokens it has places for."""

import pytest
import torch

from vistrim import UnsupportedGenerationError
from vistrim.core.layout import ImageShape, Picture
from vistrim.engine.inputs.images import find_images

CPU = torch.device("cpu")


def find(prompts: list[str], images: list[ImageShape]):
    """Prompts are written with an x for each placeholder."""
    places = torch.tensor([[character == "x" for character in prompt] for prompt in prompts])
    return find_images({"image": places}, {"image": images}, CPU)


def of(*grids):
    return ImageShape(tuple(Picture.of(grid) for grid in grids))


def test_tiles_are_pictures_of_their_own():
    found = find([".xx.xxxx", "..xx...."], [of((1, 2)), of((1, 2), (2, 1)), of((2, 1))])
    assert found.number.tolist() == [[-1, 0, 0, -1, 1, 1, 2, 2], [-1, -1, 0, 0, -1, -1, -1, -1]]
    assert [[picture.grid for picture in own] for own in found.of_sample] == [[(1, 2), (1, 2), (2, 1)], [(2, 1)]]


def test_samples_that_are_repeated_share_their_images():
    found = find(["xx.", "xx.", "x..", "x.."], [of((1, 2)), of((1, 1))])
    assert found.number.tolist() == [[0, 0, -1]] * 2 + [[0, -1, -1]] * 2


def test_features_of_all_prompts_in_one_tensor():
    """Nothing is known of their pictures: each prompt's part of them counts as one."""
    found = find(["xxx.", "....", ".xx."], [ImageShape((Picture(5),))])
    assert found.number.tolist() == [[0, 0, 0, -1], [-1] * 4, [-1, 0, 0, -1]]
    assert found.of_sample == ((Picture(3),), (), (Picture(2),))


@pytest.mark.parametrize("grids", [[(1, 2), (1, 4)], [(1, 4), (1, 1)], [(1, 2)], [(1, 3), (1, 3), (1, 1)]])
def test_images_that_do_not_fit_the_prompts_are_refused(grids):
    """Also where their tokens are as many as the places of all prompts together."""
    with pytest.raises(UnsupportedGenerationError, match="sample by sample"):
        find(["xxx.", "xxx."], [of(grid) for grid in grids])
