"""Cuts inside the layers; imported when a method asks for them."""
