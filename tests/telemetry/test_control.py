import json
import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from mscfs.errors import MountError, StoreUnavailableError
from mscfs.telemetry import control


async def echo(arguments):
    return dict(arguments)


async def ask(path, command, *, patience=10.0, **arguments):
    return await trio.to_thread.run_sync(lambda: control.request(path, command, arguments, timeout=patience))


@pytest.fixture
async def server(tmp_path, nursery):
    async def refuse(arguments):
        raise StoreUnavailableError("connection refused", store="backup")

    async def crash(arguments):
        raise ZeroDivisionError

    path = tmp_path / "1.socket"
    await nursery.start(control.serve, path, {"echo": echo, "refuse": refuse, "crash": crash})
    yield path
    nursery.cancel_scope.cancel()


async def test_arguments_and_results_travel_both_ways(server):
    assert await ask(server, "echo", key="a\nb", number=2.5, nothing=None) == {
        "key": "a\nb",
        "number": 2.5,
        "nothing": None,
    }


async def test_N3_a_name_that_is_not_utf8_survives(server):
    name = os.fsdecode(b"caf\xe9")
    assert await ask(server, "echo", key=name) == {"key": name}


async def test_L5_the_socket_is_0600(server):
    assert stat.S_IMODE(server.stat().st_mode) == 0o600


async def test_L5_another_user_gets_no_answer(server, monkeypatch):
    monkeypatch.setattr(control, "_peer_uid", lambda connection: 12345)
    with pytest.raises(MountError, match=r"ended before it answered|cannot be reached"):
        await ask(server, "echo")


async def test_the_caller_is_known_to_the_kernel(server):
    seen = []
    original = control._peer_uid

    def record(connection):
        seen.append(original(connection))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "_peer_uid", record)
        await ask(server, "echo")
    assert seen == [os.geteuid()]


async def test_an_error_of_mscfs_is_the_callers_error(server):
    with pytest.raises(MountError, match=r"^backup: connection refused$"):
        await ask(server, "refuse")


async def test_L3_a_bug_in_a_command_is_logged_and_the_server_goes_on(server, caplog):
    with pytest.raises(MountError, match="its log has the details"):
        await ask(server, "crash")
    assert "ZeroDivisionError" in caplog.text
    assert await ask(server, "echo", still="here") == {"still": "here"}


async def test_an_unknown_command_names_the_known_ones(server):
    with pytest.raises(MountError, match="no command `destroy`; known: crash, echo, refuse"):
        await ask(server, "destroy")


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b"3\n",
        b"null\n",
        b"\xff\n",
        b'{"command": []}\n',
        b'{"command": {"n": 1}}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=range(9),
)
async def test_L3_a_line_that_is_no_request_gets_an_error(server, line):
    assert "error" in json.loads(await raw(server, line))


async def test_one_connection_carries_several_requests(server):
    answers = await raw(server, b'{"command": "echo", "n": 1}\n{"command": "echo", "n": 2}\n')
    assert [json.loads(line)["result"]["n"] for line in answers.splitlines()] == [1, 2]


async def test_a_line_without_end_is_cut_off(server):
    assert await raw(server, b"x" * (control.LONGEST_LINE + 2), half_close=False) == b""


async def test_a_caller_that_hangs_up_harms_nobody(server, nursery):
    started, released = trio.Event(), trio.Event()

    async def wait(arguments):
        started.set()
        await released.wait()
        return "late"

    path = server.with_name("2.socket")
    await nursery.start(control.serve, path, {"wait": wait, "echo": echo})
    connection = await trio.open_unix_socket(str(path))
    await connection.send_all(b'{"command": "wait"}\n')
    await started.wait()
    await connection.aclose()
    released.set()
    assert await ask(path, "echo", n=1) == {"n": 1}


async def test_nobody_listening_is_one_clear_line(tmp_path):
    with pytest.raises(MountError, match=r"the mount cannot be reached at .*1\.socket"):
        control.request(tmp_path / "1.socket", "status")


async def test_a_mount_that_does_not_answer_in_time(nursery, tmp_path):
    async def sleep(arguments):
        await trio.sleep_forever()

    path = tmp_path / "1.socket"
    await nursery.start(control.serve, path, {"sleep": sleep})
    with pytest.raises(MountError, match=r"did not answer `sleep` within 0\.01 s"):
        await ask(path, "sleep", patience=0.01)
    nursery.cancel_scope.cancel()


async def test_the_file_goes_when_the_server_ends_and_a_left_one_is_replaced(tmp_path):
    path = tmp_path / "1.socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, {"echo": echo})
        assert await ask(path, "echo") == {}
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_a_directory_with_a_long_name_is_no_obstacle(nursery, tmp_path):
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    await nursery.start(control.serve, directory / "1.socket", {"echo": echo})
    assert await ask(directory / "1.socket", "echo") == {}
    nursery.cancel_scope.cancel()


async def raw(path: Path, data: bytes, *, half_close: bool = True) -> bytes:
    received = b""
    async with await trio.open_unix_socket(str(path)) as connection:
        try:
            await connection.send_all(data)
            if half_close:
                await connection.send_eof()
            async for part in connection:
                received += part
        except trio.BrokenResourceError:
            pass
    return received
