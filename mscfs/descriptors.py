"""The open files of a process that was forked and goes on as another program would."""

from __future__ import annotations

import os


def close_from_3_but(*kept: int) -> None:
    """Close all descriptors but the standard streams and those."""
    first = 3
    for last in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        if first < last:  # closerange takes an empty range for all there is
            os.closerange(first, last)
        first = last + 1
