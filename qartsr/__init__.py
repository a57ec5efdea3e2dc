"""QArtSR: low-bit quantization of one-step diffusion image super-resolution."""
