"""Training of ``reference-lm``: a vision tower from scratch, then a projector and an adapter of SmolLM2."""
