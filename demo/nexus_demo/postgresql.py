"""A PostgreSQL server on a Unix socket, for tests and benchmarks."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def find_postgresql() -> Path | None:
    """The folder of its programs. Debian keeps them off everybody's PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """Run an empty server with its usual settings; yields the URL of its first database."""
    # A folder that another user may enter: the server refuses to run as root.
    with TemporaryDirectory(prefix="nexus-pg-") as name:
        folder = Path(name)
        owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        data = folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            os.chown(data, owner.pw_uid, owner.pw_gid)
            os.chown(folder, owner.pw_uid, owner.pw_gid)

        def do(*command: str) -> None:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                cwd="/",
                user=owner.pw_uid if os.geteuid() == 0 else None,
            )

        do(f"{programs}/initdb", "-D", str(data), "-U", "nexus", "--auth=trust", "-E", "UTF8", "-N")
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=40"
        )
        control = (f"{programs}/pg_ctl", "-D", str(data), "-w")
        do(*control, "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://nexus@/postgres?host={folder}"
        finally:
            do(*control, "-m", "immediate", "stop")
