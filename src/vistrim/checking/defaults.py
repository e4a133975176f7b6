"""Question and answer length of a check, unless others are given."""

NEW_TOKENS = 8
PROMPT = "Describe the image."
