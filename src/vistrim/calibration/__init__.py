"""Measuring on prompts what suits a model."""
