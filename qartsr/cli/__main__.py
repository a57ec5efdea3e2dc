"""``python -m qartsr.cli`` is ``qartsr``."""

import sys

from qartsr.cli import main

sys.exit(main())
