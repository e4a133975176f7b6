"""Scenes of small objects on textured backgrounds, and questions about them, for ``reference-lm``.

The tasks are those of ``reference``. The objects are smaller and placed more freely, and the backgrounds are not blank,
so that a method that keeps the wrong tokens loses the answer.
"""
