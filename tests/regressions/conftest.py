from tests.cli.conftest import checkpoint, image

__all__ = ["checkpoint", "image"]
