"""Prefect flows. They read the graph from DVC, run stages through DVC, and know nothing of tensors."""

from qartsr.files import home_for_servers

home_for_servers()
