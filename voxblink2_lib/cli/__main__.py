"""``python -m voxblink2_lib.cli``, the same as ``voxblink2``."""

from __future__ import annotations

import sys

from voxblink2_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
