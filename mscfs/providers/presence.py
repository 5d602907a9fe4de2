"""Is the bucket there at all? The answer to HEAD has no body: it tells a missing object, but not a missing bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mscfs.errors import AccessDeniedError, NotFoundError

BELIEVED_SECONDS = 60.0
"""How long a bucket that was there is believed to be there."""


class BucketPresence:
    """Asks for the bucket when objects are said to be missing, but not each time. Safe in threads."""

    def __init__(self, probe: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._clock = clock
        self._believed_until = float("-inf")

    @contextmanager
    def confirmed(self) -> Iterator[None]:
        """Around a call that may say NotFoundError: StoreMissingError instead, when the bucket is what is missing."""
        try:
            yield
        except NotFoundError:
            if self._clock() >= self._believed_until:
                # Whoever may read objects may be forbidden to list them: then the bucket is there.
                with suppress(AccessDeniedError):
                    self._probe()
                self._believed_until = self._clock() + BELIEVED_SECONDS
            raise
