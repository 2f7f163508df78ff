from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from nexus_agent.status.listener import MAX_PATH_BYTES, StatusError, listen


def test_socket_and_new_folder_are_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"

    listener = listen(path, None)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_socket_and_new_folder_belong_to_the_group(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"

    listener = listen(path, 54321)

    assert (path.stat().st_gid, path.parent.stat().st_gid) == (54321, 54321)
    listener.close()


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)

    listen(tmp_path / "agent.sock", None).close()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o711


def test_a_dead_agents_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))

    listener = listen(path, None)

    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(os.fspath(path))
    listener.close()


def test_a_live_agents_socket_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    first = listen(path, None)

    with pytest.raises(StatusError, match="another agent listens there"):
        listen(path, None)

    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(os.fspath(path))
    first.close()


def test_a_live_agent_with_a_full_backlog_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(os.fspath(path))
        busy.listen(0)
        waiting.connect(os.fspath(path))

        with pytest.raises(StatusError, match="another agent listens there"):
            listen(path, None)


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("precious")

    with pytest.raises(StatusError, match="is no socket"):
        listen(path, None)

    assert path.read_text() == "precious"


def test_the_longest_path_works_and_one_byte_more_is_a_clear_error(tmp_path: Path) -> None:
    room = MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    listen(tmp_path / ("s" * room), None).close()

    with pytest.raises(StatusError, match=r"has 108 bytes, 107 are possible"):
        listen(tmp_path / ("s" * (room + 1)), None)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StatusError, match=r"agent\.sock: cannot listen: "):
        listen(tmp_path / "file" / "agent.sock", None)


def test_closing_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    first = listen(path, None)
    path.unlink()
    second = listen(path, None)

    first.close()

    assert path.exists()
    second.close()
    assert not path.exists()
