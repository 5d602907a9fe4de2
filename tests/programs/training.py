"""Python programs as users write them: each works in a directory and returns what it found, as JSON knows it.

They know nothing of mounts. `tests.programs.worker` runs them, so that the slow imports are paid once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

Program = Callable[[Path], Any]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


# Where the tests run it: one that asks much of a store on every kind of primary, a slow one only once.
demanding = slow = program


def numbers(count: int = 50_000) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(count).astype(np.float32)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


class Samples(Dataset):
    def __init__(self, directory: Path) -> None:
        self.files = sorted(directory.glob("*/*.npy"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return np.load(self.files[index]), self.files[index].parent.name


def made_samples(here: Path) -> Samples:
    for number in range(24):
        directory = here / f"class{number % 3}"
        directory.mkdir(exist_ok=True)
        np.save(directory / f"{number:03}.npy", np.full(500, number, np.float32))
    return Samples(here)


def epoch(batches: DataLoader) -> list[Any]:
    return [[float(pixels.sum()), list(labels)] for pixels, labels in batches]


@program
def dataloader_with_forked_workers(here: Path) -> Any:
    samples = made_samples(here)
    assert samples[1][0].sum() == 3 * 500  # the parent has read before it forks
    batches = DataLoader(samples, batch_size=8, num_workers=2, multiprocessing_context="fork")
    return [epoch(batches), epoch(batches)]


@slow
def dataloader_with_persistent_spawned_workers(here: Path) -> Any:
    batches = DataLoader(
        made_samples(here), batch_size=8, num_workers=1, multiprocessing_context="spawn", persistent_workers=True
    )
    return [epoch(batches), epoch(batches)]


@demanding
def torch_save_and_load(here: Path) -> Any:
    path, temporary = here / "model.pt", here / "model.pt.tmp"
    found = []
    for step in range(2):
        state = {"step": step, "weights": torch.from_numpy(numbers() + step), "bias": torch.arange(1000.0)}
        torch.save(state, temporary)
        temporary.replace(path)
        loaded, mapped = torch.load(path), torch.load(path, mmap=True)
        for name in ("weights", "bias"):
            assert torch.equal(loaded[name], state[name])
            assert torch.equal(mapped[name], state[name])
        found.append([loaded["step"], float(mapped["weights"].sum())])
    torch.save(torch.arange(10), path)  # onto a file that is there, and mapped
    found.append(torch.load(path, mmap=True).tolist())
    torch.save(torch.arange(100), here / "old_format.pt", _use_new_zipfile_serialization=False)
    found.append(int(torch.load(here / "old_format.pt").sum()))
    return found


def save_and_load_shards(rank: int, here: Path) -> None:
    dist, dcp = torch.distributed, torch.distributed.checkpoint
    # The meeting point is a file on the mount: the processes append to it under flock.
    dist.init_process_group("gloo", init_method=f"file://{here}/meeting", rank=rank, world_size=2)
    state = {"mine": torch.arange(1000.0) + rank, f"only{rank}": torch.full((10,), float(rank)), "step": 7}
    dcp.save(state, checkpoint_id=here / "checkpoint")
    loaded = {"mine": torch.zeros(1000), f"only{rank}": torch.zeros(10), "step": 0}
    dcp.load(loaded, checkpoint_id=here / "checkpoint")
    assert torch.equal(loaded[f"only{rank}"], state[f"only{rank}"])
    assert loaded["step"] == 7
    dist.destroy_process_group()


@program
def distributed_checkpoint(here: Path) -> Any:
    importlib.import_module("torch.distributed.checkpoint")  # once, not in each process
    torch.multiprocessing.start_processes(save_and_load_shards, (here,), nprocs=2, start_method="fork")
    return sorted(path.name for path in (here / "checkpoint").iterdir())


@demanding
def summary_writer_read_while_written(here: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    seen = []
    with SummaryWriter(here / "run") as writer:
        reader = EventAccumulator(str(here / "run"))
        for step in range(3):
            writer.add_scalar("loss", 1.0 / (step + 1), step)
            writer.flush()
            reader.Reload()
            seen.append([[event.step, round(event.value, 3)] for event in reader.Scalars("loss")])
    return seen


@demanding
def safetensors_save_and_load(here: Path) -> Any:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = here / "model.safetensors"
    found = []
    for step in range(2):
        tensors = {"a": torch.from_numpy(numbers() + step), "b": torch.arange(2000.0).reshape(20, 100)}
        save_file(tensors, path, metadata={"step": str(step)})
        loaded = load_file(path)
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
        with safe_open(path, framework="pt") as opened:
            found.append([opened.metadata()["step"], opened.get_slice("b")[3:5, 7].tolist()])
    return found


# -- arrays and tables ------------------------------------------------------------------------------------------------


@demanding
def numpy_files(here: Path) -> Any:
    data = numbers()
    np.save(here / "a.npy", data)
    np.savez(here / "b.npz", x=data, y=np.arange(10))
    np.savez_compressed(here / "c.npz", x=data)
    assert np.array_equal(np.load(here / "a.npy"), data)
    assert np.array_equal(np.load(here / "a.npy", mmap_mode="r"), data)
    with np.load(here / "b.npz") as b, np.load(here / "c.npz") as c:
        assert np.array_equal(b["x"], c["x"])
    new = np.memmap(here / "d.bin", np.int32, "w+", shape=(100, 1000))
    new[:] = np.arange(1000)
    new[99] = 5
    new.flush()
    del new
    changed = np.memmap(here / "d.bin", np.int32, "r+", shape=(100, 1000))
    changed[50, 500] = -1
    changed.flush()
    del changed
    private = np.load(here / "a.npy", mmap_mode="c")
    private[0] = 1e6  # stays in this process
    assert np.load(here / "a.npy")[0] == data[0]
    read = np.fromfile(here / "d.bin", np.int32).reshape(100, 1000)
    return [int(read.sum()), int(read[50, 500]), int(read[99, 0])]


@demanding
def h5py_files(here: Path) -> Any:
    import h5py

    path = here / "data.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = numbers()
        grown = file.create_dataset("grown", (0, 10), maxshape=(None, 10), chunks=(64, 10), compression="gzip")
        grown.attrs["unit"] = "m"
    for _ in range(3):
        with h5py.File(path, "a") as file:
            rows = len(file["grown"])
            file["grown"].resize(rows + 100, axis=0)
            file["grown"][rows:] = np.arange(1000).reshape(100, 10)
            file.flush()
    with h5py.File(path, "r") as file, h5py.File(path, "r") as other:
        assert np.array_equal(file["plain"][:], numbers())
        return [list(file["grown"].shape), int(other["grown"][150:160, 3].sum()), file["grown"].attrs["unit"]]


@demanding
def parquet_and_datasets(here: Path) -> Any:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    table = pa.table({"id": range(10_000), "kind": [f"k{i % 4}" for i in range(10_000)], "x": numbers(10_000)})
    pq.write_table(table, here / "one.parquet", row_group_size=1000)
    with pq.ParquetFile(here / "one.parquet", memory_map=True) as file:
        groups = file.metadata.num_row_groups
        seventh = file.read_row_group(7, columns=["id"])["id"][0].as_py()
    assert pq.read_table(here / "one.parquet").equals(table)
    filtered = pq.read_table(here / "one.parquet", columns=["id"], filters=[("id", ">=", 9_990)])
    ds.write_dataset(table, here / "many", format="parquet", partitioning=["kind"], partitioning_flavor="hive")
    many = ds.dataset(here / "many", partitioning="hive")
    count = many.count_rows(filter=(ds.field("kind") == "k2") & (ds.field("id") < 1000))
    fragments = len(list(many.get_fragments(filter=ds.field("kind") == "k1")))
    return [groups, seventh, filtered["id"].to_pylist(), count, fragments]


@demanding
def zarr_arrays(here: Path) -> Any:
    import zarr

    group = zarr.open_group(here / "group.zarr", mode="w")
    array = group.create_array("x", shape=(40, 40), chunks=(20, 20), dtype="i4")
    array[:] = np.arange(1600).reshape(40, 40)
    array.attrs["unit"] = "m"
    array.resize((60, 40))
    array[40:] = 7
    again = zarr.open_group(here / "group.zarr", mode="r")["x"]
    return [list(again.shape), int(again[15:25, 39].sum()), int(again[59, 0]), again.attrs["unit"]]


@program
def pandas_csv(here: Path) -> Any:
    import pandas as pd

    frame = pd.DataFrame({"a": range(2000), "b": [f"täxt {i}" for i in range(2000)]})
    for part in range(2):
        frame[part * 1000 : (part + 1) * 1000].to_csv(here / "a.csv", mode="a", header=not part, index=False)
    frame.to_csv(here / "a.csv.gz", index=False)
    parts = [len(part) for part in pd.read_csv(here / "a.csv", chunksize=800)]
    assert pd.read_csv(here / "a.csv").equals(frame)
    assert pd.read_csv(here / "a.csv.gz").equals(frame)
    return parts


# -- data sets --------------------------------------------------------------------------------------------------------


@program
def webdataset_streaming(here: Path) -> Any:
    import webdataset as wds

    with wds.ShardWriter(str(here / "shard-%03d.tar"), maxcount=10, verbose=0, mtime=0) as shards:
        for number in range(25):
            shards.write({"__key__": f"{number:04}", "cls": number % 5, "npy": np.full(300, number)})
    shards = wds.WebDataset(str(here / "shard-{000..002}.tar"), shardshuffle=False).decode().to_tuple("npy", "cls")
    return [[int(array[0]), int(label)] for array, label in DataLoader(shards, batch_size=None, num_workers=0)]


@demanding
def hugging_face_datasets(here: Path) -> Any:
    from datasets import disable_progress_bars, load_dataset, load_from_disk

    disable_progress_bars()
    (here / "data.csv").write_text("text,label\n" + "".join(f"line {i},{i % 3}\n" for i in range(600)))
    found = []
    for _ in range(2):  # made, then found in the cache
        data = load_dataset("csv", data_files=str(here / "data.csv"), cache_dir=str(here / "cache"), split="train")
        long = data.map(_with_length, batched=True, batch_size=100, cache_file_name=str(here / "cache/long.arrow"))
        found.append([len(long), sum(long["length"])])
    long.filter(_is_label_2, cache_file_name=str(here / "cache/filtered.arrow")).save_to_disk(here / "saved")
    loaded = load_from_disk(str(here / "saved"))
    return [*found, len(loaded), loaded[7]]


def _with_length(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"length": [len(text) for text in batch["text"]]}


def _is_label_2(row: dict[str, Any]) -> bool:
    return row["label"] == 2


@program
def pillow_images(here: Path) -> Any:
    from PIL import Image

    pixels = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3)
    found = []
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        Image.fromarray(pixels).save(here / name)
        with Image.open(here / name) as image:
            image.verify()
        with Image.open(here / name) as image:
            found.append([image.size, int(np.asarray(image).sum())])
    return found


@demanding
def joblib_dump_and_memory(here: Path) -> Any:
    import joblib

    data = numbers()
    joblib.dump({"data": data}, here / "a.joblib")
    mapped = joblib.load(here / "a.joblib", mmap_mode="r")
    assert np.array_equal(mapped["data"], data)
    calls = []

    def square(number: int) -> int:
        calls.append(number)
        return number * number

    cached = joblib.Memory(here / "memory", verbose=0).cache(square)
    results = [cached(3), cached(4), cached(3)]
    return [results, calls]


# -- databases --------------------------------------------------------------------------------------------------------


@demanding
def lmdb_written_and_read(here: Path) -> Any:
    import lmdb

    with lmdb.open(str(here / "db"), map_size=8 << 20) as writing, writing.begin(write=True) as transaction:
        for number in range(500):
            transaction.put(b"%04d" % number, b"value %d" % number * 10)
    with (
        lmdb.open(str(here / "db"), readonly=True, lock=False, readahead=False) as reading,
        reading.begin() as transaction,
    ):
        values = [value.decode() for key, value in transaction.cursor() if key.endswith(b"99")]
        return [reading.stat()["entries"], values]


def _count_up(path: Path, times: int) -> None:
    with sqlite3.connect(path, timeout=60) as database:
        for _ in range(times):
            database.execute("begin immediate")
            database.execute("update counter set n = n + 1")
            database.commit()
    database.close()


@demanding
def sqlite_in_its_default_journal_mode(here: Path) -> Any:
    path = here / "data.db"
    database = sqlite3.connect(path)
    mode = database.execute("pragma journal_mode").fetchone()[0]
    with database:
        database.execute("create table counter (n integer)")
        database.execute("insert into counter values (0)")
        database.execute("create table texts (id integer primary key, text)")
        database.executemany("insert into texts (text) values (?)", [(f"text {i}" * 20,) for i in range(500)])
    database.execute("delete from texts")
    database.rollback()
    database.close()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count_up, args=(path, 5)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    database = sqlite3.connect(path)
    database.execute("vacuum")
    found = [
        mode,
        *database.execute("select n from counter").fetchone(),
        *database.execute("select count(*) from texts").fetchone(),
        *database.execute("pragma integrity_check").fetchone(),
    ]
    database.close()
    return found


# -- the standard library ---------------------------------------------------------------------------------------------


def _log_lines(here: Path) -> Iterator[str]:
    for path in sorted(here.glob("log*"), reverse=True):
        yield from path.read_text().splitlines()


@program
def rotating_logs(here: Path) -> Any:
    import logging.handlers

    log = logging.getLogger("rotating")
    handler = logging.handlers.RotatingFileHandler(here / "log", maxBytes=400, backupCount=9)
    log.propagate = False
    log.addHandler(handler)
    for number in range(40):
        log.error("line number %03d of the log", number)
    log.removeHandler(handler)
    handler.close()
    lines = list(_log_lines(here))
    return [len(list(here.glob("log*"))), len(lines), lines[0], lines[-1]]
