"""``qartsr serve``: a model behind HTTP, with limits, and to be seen from outside. Needs the extra [server]."""

from qartsr.server.limits import MAX_BYTES, MAX_PIXELS, MAX_SECONDS, MAX_WAITING, Limits

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_SECONDS", "MAX_WAITING", "Limits"]
