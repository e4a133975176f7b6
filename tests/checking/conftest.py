from tests.cli.conftest import checkpoint, image, no_model

__all__ = ["checkpoint", "image", "no_model"]
