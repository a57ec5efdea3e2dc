"""Prefect flows. They read the graph from DVC, run stages through DVC, and know nothing of tensors."""
