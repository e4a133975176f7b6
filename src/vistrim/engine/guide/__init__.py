"""A second model that answers first; imported when a method asks for it."""
