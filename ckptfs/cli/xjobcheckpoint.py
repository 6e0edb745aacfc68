"""``xjobcheckpoint``: another name that the field gives to ``xcheckpoint``."""

from __future__ import annotations

import sys

from .xcheckpoint import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
