"""Serve on the loopback until killed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from .server import serve

parser = argparse.ArgumentParser(description="a Google Cloud Storage server for tests")
parser.add_argument("--port", type=int, default=0, help="0: a free one")
parser.add_argument("--public-key", type=Path, help="PEM of the service account that gets tokens")
arguments = parser.parse_args()
key = arguments.public_key.read_text() if arguments.public_key else ""
with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(serve("127.0.0.1", arguments.port, key))
