"""Data only: the weights that ``vistrim.load("reference-lm")`` adds to its language model."""
