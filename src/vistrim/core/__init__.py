"""Pure tensor and number functions. They import torch only and do not depend on any model."""
