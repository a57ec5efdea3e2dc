"""A page to try and compare models on; only :mod:`qartsr.web.page` needs Gradio, the extra ``web``."""
