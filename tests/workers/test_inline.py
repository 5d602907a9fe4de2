"""The pool without processes."""

import pytest

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import NotFoundError
from mscfs.types import Version
from mscfs.workers.inline import InlinePool
from mscfs.workers.tasks import Tasks
from tests.workers.stores import DirectoryStore


async def inline(call, /, *arguments):
    return call(*arguments)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return DirectoryStore(tmp_path / "store")


async def test_the_same_calls_without_processes(store, tmp_path):
    with ChunkCache(tmp_path / "cache", 1 << 30) as cache:
        pool = InlinePool(Tasks(store, cache, namespace="test", chunk_size=4), inline)
        staged = tmp_path / "staged"
        staged.write_bytes(b"0123456789")
        version = (await pool.upload("a", staged)).version
        chunks = []
        summary = await pool.fetch(
            "a", version, 0, 3, foreground=True, on_chunk=lambda index, data: chunks.append((index, data))
        )
        assert chunks == [(0, None), (1, None), (2, None)]
        assert summary.bytes == 10
        assert cache.contains(ChunkId(object_digest("test", "a", version, 4), 2))
        (tmp_path / "target").touch()
        await pool.download("a", version, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"0123456789"


async def test_a_failed_fetch_raises_the_stores_error(store):
    pool = InlinePool(Tasks(store, None, namespace="test", chunk_size=4), inline)
    with pytest.raises(NotFoundError):
        await pool.fetch("a", Version(3, "x"), 0, 1, foreground=True, on_chunk=lambda index, data: None)
