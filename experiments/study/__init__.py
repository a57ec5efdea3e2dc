"""Every method in one harness: one budget, one set of measurements, the paper's tables and figures."""
