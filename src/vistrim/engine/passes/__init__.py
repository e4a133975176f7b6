"""Forward passes of the decoder: prefill, decoding, and what each layer is given."""
