"""Values that every method reaches at a budget."""
