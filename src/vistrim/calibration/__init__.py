"""Calibration of methods to a model, measured on prompts."""
