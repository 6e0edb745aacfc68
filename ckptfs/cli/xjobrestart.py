"""``xjobrestart``: another name that the field gives to ``xrestart``."""

from __future__ import annotations

import sys

from .xrestart import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
