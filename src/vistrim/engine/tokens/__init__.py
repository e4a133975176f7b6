"""What is left of a sequence once tokens are gone: which rows, their positions and their masks."""
