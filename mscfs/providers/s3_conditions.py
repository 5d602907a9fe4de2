"""Does this server decide about the conditions of writes (If-Match, If-None-Match), or does it only take them?

AWS decides since 2024; of what else speaks S3's protocol some servers do, some answer 501, and some store the object
and ignore the condition, which would lose somebody's write in silence. So nobody is believed: before the first
conditional write, one that can only fail is tried (contract W5).
"""

from __future__ import annotations

import enum
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress

from mscfs.errors import AccessDeniedError, NotFoundError, StorageError, UnsupportedError, VersionMismatchError

_logger = logging.getLogger(__name__)

NO_SUCH_TAG = "0123456789abcdef0123456789abcdef"
"""An ETag that no object has."""


class Verdict(enum.StrEnum):
    """What is known of a server."""

    HEEDED = "heeded"
    """The server decides: conditional writes are atomic across hosts."""
    IGNORED = "ignored"
    """It stores whatever the condition says, or refuses conditions: mscfs compares just before it writes."""
    UNTOLD = "untold"
    """We may not try it: mscfs compares and sends the condition as well."""


class Conditions:
    """Finds out once, when it is first needed; two threads at the same time may both do so.

    `write` is a conditional write of an empty object and `remove` deletes one. Both take a key and raise StorageError.
    """

    def __init__(
        self,
        profile: str,
        *,
        write: Callable[[str], object],
        remove: Callable[[str], object],
        known: Verdict | None = None,
    ) -> None:
        self._profile = profile
        self._write = write
        self._remove = remove
        self.verdict = known
        """None: not needed so far."""

    def find_out(self) -> Verdict:
        """The verdict. Raises StorageError while the server does not answer: then nothing can be written anyway."""
        if self.verdict is None:
            self.verdict = self._try()
        return self.verdict

    def _try(self) -> Verdict:
        key = f".mscfs-condition-{uuid.uuid4().hex}"
        try:
            self._write(key)
        except (NotFoundError, VersionMismatchError):
            return Verdict.HEEDED
        except AccessDeniedError:
            return Verdict.UNTOLD
        except UnsupportedError:
            pass
        except StorageError as error:
            if error.transient:
                raise
            # It does not like the request, whatever it means by that.
        else:
            with suppress(StorageError):
                self._remove(key)
        _logger.warning(
            "%s: the store ignores the conditions of writes: two hosts that write one object at the same moment"
            " may not notice each other",
            self._profile,
        )
        return Verdict.IGNORED
