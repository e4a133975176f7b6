"""Applications for tests of replicas, in a module that their processes can import."""

import time

from vistrim.serving.app import create_app


def slow_app(engine, processor, **settings):
    """An application whose answers take long enough to end its replica while they are sent."""
    engine.model.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    return create_app(engine, processor, **settings)
