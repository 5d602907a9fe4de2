"""The journal: what must happen even after kill -9 or a reboot."""

from mscfs.journal.entries import (
    ClaimedWish,
    FinishedUpload,
    Lag,
    MoveState,
    PendingDelete,
    PendingMove,
    PendingParts,
    PendingRename,
    PendingUpload,
    StagedUpload,
    UploadMode,
    Wish,
    WishKind,
)
from mscfs.journal.journal import Journal
from mscfs.journal.process import boot, is_alive, process_token

__all__ = [
    "ClaimedWish",
    "FinishedUpload",
    "Journal",
    "Lag",
    "MoveState",
    "PendingDelete",
    "PendingMove",
    "PendingParts",
    "PendingRename",
    "PendingUpload",
    "StagedUpload",
    "UploadMode",
    "Wish",
    "WishKind",
    "boot",
    "is_alive",
    "process_token",
]
