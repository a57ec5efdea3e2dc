"""One script per question; what they found is in ``results/``."""
