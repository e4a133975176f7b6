"""Inputs of a prompt: images, values of the vision tower, the question and the ranking rows."""
