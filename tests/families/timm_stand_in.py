"""A convolution in place of vision towers that transformers takes from timm, which the tests do without."""

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3n import Gemma3nVisionConfig

WIDTH = 16


class PlainTowerConfig(transformers.PreTrainedConfig):
    """Features as a map ``[images, 16, rows, columns]``, as a convolutional network returns them."""

    model_type = "plain_tower"
    hidden_size: int = WIDTH
    model_args: dict | None = None


class ClassTowerConfig(PlainTowerConfig):
    """Features as a row ``[images, 1 + patches, 16]`` behind a class token, as a transformer returns them."""

    model_type = "class_tower"


class Gemma3nTowerConfig(Gemma3nVisionConfig):
    """Gemma 3n's own settings beside the map."""

    model_type = "gemma3n_tower"


class PlainTower(transformers.PreTrainedModel):
    """One convolution over patches of 4 by 4 pixels."""

    config_class = PlainTowerConfig
    # It has no attention, so that it goes with every implementation of it.
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.post_init()

    def forward(self, pixel_values, **kwargs):
        return BaseModelOutputWithPooling(last_hidden_state=self.patches(pixel_values))


class Gemma3nTower(PlainTower):
    """The same under Gemma 3n's settings."""

    config_class = Gemma3nTowerConfig


class ClassTower(PlainTower):
    """The same as a row behind the mean in the place of a class token."""

    config_class = ClassTowerConfig

    def forward(self, pixel_values, **kwargs):
        row = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(last_hidden_state=torch.cat([row.mean(1, keepdim=True), row], 1))


for _model in (PlainTower, ClassTower, Gemma3nTower):
    transformers.AutoConfig.register(_model.config_class.model_type, _model.config_class)
    transformers.AutoModel.register(_model.config_class, _model)
