"""Integer kernels: unpacking, fused quantization, convolution and matrix product; plain torch and Triton.

The two implementations of :class:`Kernels` are :mod:`qartsr.kernels.plain`, which runs anywhere, and
:mod:`qartsr.kernels.compiled`, which imports Triton and is therefore not imported here.
"""

from qartsr.kernels.interface import Activation, Affine, Epilogue, Geometry, InputCodes, Kernels, PackedWeight

__all__ = [
    "Activation",
    "Affine",
    "Epilogue",
    "Geometry",
    "InputCodes",
    "Kernels",
    "PackedWeight",
]
