"""Does this machine have what ckptfs needs?  Answers in sentences; imports no other part."""

from .checks import Need
from .command import main
from .gate import require

__all__ = ["Need", "main", "require"]
