"""Models nobody has to download: their architecture as data, random weights, and the folder that holds them."""

from qartsr.models import blank
from qartsr.models.sd_unet.architectures import ARCHITECTURES
from qartsr.synthetic.folder import Report, folder_size, write_random_model
from qartsr.synthetic.weights import random_model

__all__ = ["ARCHITECTURES", "Report", "blank", "folder_size", "random_model", "write_random_model"]
