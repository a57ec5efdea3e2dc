"""Triton kernels and their plain-torch counterparts: integer convolution and matrix product, fused quantization."""
