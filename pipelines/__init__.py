"""Prefect flows. They read the graph from DVC, run stages through DVC, and know nothing of tensors."""

import sys

from qartsr.errors import QartsrError
from qartsr.files import home_for_servers

try:
    home_for_servers()  # here, for Prefect asks for a home as soon as it is imported
except QartsrError as error:
    sys.exit(f"error: {error}")
