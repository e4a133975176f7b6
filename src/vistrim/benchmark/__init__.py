"""Speed and memory of the untouched and the trimmed model, with speed-up bounds."""
