"""``python -m compositeh5``: the same as the command ``compositeh5``."""

import sys

from .cli import main

sys.exit(main())
