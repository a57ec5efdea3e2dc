"""Packages that run without torch: their graphs, compiled by OpenVINO, and NumPy around them."""
