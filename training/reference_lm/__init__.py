"""Training of ``reference-lm``: a vision tower from scratch, then an adapter of SmolLM2 that reads it."""
