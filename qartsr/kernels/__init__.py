"""Kernels for running codes on a device."""
