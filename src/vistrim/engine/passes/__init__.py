"""Forward passes of the decoder: prefill, decoding, and the inputs of each layer."""
