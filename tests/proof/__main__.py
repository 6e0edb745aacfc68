"""``python -m tests.proof``: what tools/torture runs."""

import sys

from .torture import main

sys.exit(main())
