"""Speed and memory, untouched against trimmed, next to what is possible at most."""
