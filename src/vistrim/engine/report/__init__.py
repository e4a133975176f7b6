"""Recording of a generation, and its report as plain data."""
