"""Reading queries and keys at the attention interface, and the kernels behind it."""
