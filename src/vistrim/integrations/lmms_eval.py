"""Entry point of lmms-eval's group ``lmms_eval.models``: ``--model vistrim``.

lmms-eval imports this module at every start, and skips all later plug-ins if it fails. Therefore it imports nothing.
"""

from typing import Any


def manifest() -> Any:
    """Tell lmms-eval where the model classes are.

    Returns
    -------
    ModelManifest
        The chat model, and with ``--force_simple`` the simple one.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        "vistrim",
        chat_class_path="vistrim.integrations.lmms.model.Vistrim",
        simple_class_path="vistrim.integrations.lmms.model.SimpleVistrim",
    )
