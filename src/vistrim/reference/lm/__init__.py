"""What ``reference-lm`` is about: scenes of small objects on busy backgrounds, and questions about them.

The tasks are those of ``reference``; the objects are smaller, lie more freely, and the backgrounds are not blank: a
method that keeps the wrong tokens loses the answer.
"""
