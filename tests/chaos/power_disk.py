"""A model of a disk under a file system, and what a power cut may leave of it.

What was synced is there. Of what was not, chance drops, keeps or tears each write in granules of
512 or 4,096 bytes, whatever the order in which they were made. A file grows by what is kept of a
write behind its end; a hole in it, and growth without data, read as zeros. Names (creations,
renames, removals) and cut-off sizes are kept apart, in one of two ways, which chance chooses:

- *journal*, as ext4 with data=ordered and XFS do it: they reach the disk in their order, and chance
  decides how many. An fsync of a file takes along the last change of its own name or size and all
  before that; one of a directory, the last change in it. Unlike ext4 (auto_da_alloc), a rename over
  a file does not bring the new one's data along, and an fdatasync without a new size no names.
- *loose*, as POSIX leaves it: each may be there or not, on its own; a rename is whole, but may be
  undone where another behind it is not. Only an fsync of the directory settles what was done in it.

The folder itself is there. A write that was synced is not harmed by one beside it (power-safe
overwrite: SQLite relies on it too, sqlite.org/psow.html), and an fsync does not lie.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.power_trace import Made, TraceError

GRANULES: Final = (512, 4096)
NAMES: Final = frozenset({"create", "rename", "unlink", "mkdir"})
_SPLIT: Final = ("none", "all", "prefix", "some", "most", "few")
_SHARE: Final = {"none": 0.0, "all": 1.0, "some": 0.5, "most": 0.9, "few": 0.1}


@dataclass(slots=True)
class _File:
    """Its durable bytes, and what was done since, each with its place in the whole order."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Made]] = field(default_factory=list)
    size: int = 0


class Disk:
    """Feed it operations in their order; cut the power at any time."""

    def __init__(self) -> None:
        self._count = 0
        self._files: dict[int, _File] = {}
        self._names: dict[bool, dict[str, int]] = {True: {}, False: {}}
        """Durable names, by whether they are journalled; a folder is file 0."""
        self._moves: dict[bool, list[tuple[int, Made]]] = {True: [], False: []}
        """Changes of names, and in the journal of sizes, that are not durable yet."""
        self._settled: set[int] = set()
        """Changes of sizes that are in the journal, of files whose data is not synced."""

    def do(self, made: Made) -> None:
        self._count += 1
        if made.kind in {"sync", "mark"}:
            if made.kind == "sync":
                self._sync(made)
            return
        entry = self._count, made
        if made.kind in NAMES:
            self._moves[True].append(entry)
            self._moves[False].append(entry)
            if made.kind == "create":
                self._files[made.file] = _File()
            return
        file = self._files[made.file]
        file.pending.append(entry)
        if made.kind == "write":
            end = made.at + len(made.data)
        elif made.kind == "allocate":
            end = max(file.size, made.at)
        elif made.kind == "truncate":
            end = made.at
        else:
            raise TraceError(made.kind)
        if end > file.size or made.kind != "write":
            self._moves[True].append(entry)
            file.size = end

    # -- what is synced

    def _sync(self, made: Made) -> None:
        if made.file:
            file = self._files[made.file]
            covered = [one for at, one in file.pending if at <= made.began]
            file.pending = [entry for entry in file.pending if entry[0] > made.began]
            for one in covered:
                _apply(file.durable, one)
            names = {"write", "allocate", "truncate"} if made.data_only else None
            touched = [
                at
                for at, one in self._moves[True]
                if one.file == made.file and (names is None or one.kind in names)
            ]
        else:
            touched = [at for at, one in self._moves[True] if _is_in(one, made.path)]
            inside = [e for e in self._moves[False] if _is_in(e[1], made.path)]
            for entry in inside:
                if entry[0] <= made.began:
                    _move(self._names[False], entry[1])
                    self._moves[False].remove(entry)
        through = max((at for at in touched if at <= made.began), default=0)
        while self._moves[True] and self._moves[True][0][0] <= through:
            self._settle(*self._moves[True].pop(0))

    def _settle(self, at: int, made: Made) -> None:
        """A change of a name or a size is in the journal for good."""
        if made.kind in NAMES:
            _move(self._names[True], made)
        else:
            self._settled.add(at)

    # -- what a cut leaves

    def cut(self, dice: random.Random) -> dict[str, bytes | None]:
        """Path and content of each file; a folder has None."""
        journalled = dice.random() < 0.5
        kept = self._kept_moves(dice, journalled=journalled)
        names = dict(self._names[journalled])
        for _, made in kept:
            if made.kind in NAMES:
                _move(names, made)
        sizes = self._settled | {at for at, _ in kept} if journalled else None
        policy = dice.choice(_SPLIT)
        found: dict[str, bytes | None] = {}
        for path, number in sorted(names.items()):
            if number == 0:
                found[path] = None
            elif not path.endswith("-shm"):  # SQLite makes it anew
                found[path] = self._content(self._files[number], policy, sizes, dice)
        return {p: c for p, c in found.items() if not _parent(p) or _parent(p) in names}

    def _kept_moves(self, dice: random.Random, *, journalled: bool) -> list[tuple[int, Made]]:
        moves = self._moves[journalled]
        if journalled:
            return moves[: dice.randint(0, len(moves))]
        share = dice.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        return [entry for entry in moves if dice.random() < share]

    def _content(
        self, file: _File, policy: str, sizes: set[int] | None, dice: random.Random
    ) -> bytes:
        content = bytearray(file.durable)
        granule = dice.choice(GRANULES)
        whole = dice.randint(0, len(file.pending))
        for place, (at, made) in enumerate(file.pending):
            if policy == "prefix":
                # Written in their order up to one, and of that a part.
                share = 1.0 if place < whole else 0.5 if place == whole else 0.0
            else:
                share = _SHARE[policy]
            sized = at in sizes if sizes is not None else dice.random() < share
            if made.kind == "write":
                _tear(content, made, granule, share, dice)
                if sized and len(content) < made.at + len(made.data):
                    content.extend(bytes(made.at + len(made.data) - len(content)))
            elif sized:
                _apply(content, made)
        return bytes(content)


def _apply(content: bytearray, made: Made) -> None:
    end = made.at + len(made.data) if made.kind == "write" else made.at
    if made.kind == "truncate":
        del content[end:]
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if made.kind == "write":
        content[made.at : end] = made.data


def _tear(content: bytearray, made: Made, granule: int, share: float, dice: random.Random) -> None:
    """Each granule that the write touches is kept by chance."""
    at, end = made.at, made.at + len(made.data)
    while at < end:
        following = min(end, (at // granule + 1) * granule)
        if share == 1.0 or (share and dice.random() < share):
            if len(content) < following:
                content.extend(bytes(following - len(content)))
            content[at:following] = made.data[at - made.at : following - made.at]
        at = following


def _move(names: dict[str, int], made: Made) -> None:
    if made.kind == "unlink":
        names.pop(made.path, None)
    elif made.kind == "rename":
        names.pop(made.path, None)
        names[made.to] = made.file
    else:
        names[made.path] = made.file


def _is_in(made: Made, folder: str) -> bool:
    """Whether a change of a name was made in *folder*."""
    paths = [made.path, made.to] if made.to else [made.path]
    return made.kind in NAMES and folder in {_parent(path) for path in paths}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def write_out(state: dict[str, bytes | None], folder: Path) -> None:
    """Lay the files of a state into *folder*, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in state.items():
        if content is None:
            (folder / path).mkdir()
    for path, content in state.items():
        if content is not None:
            (folder / path).write_bytes(content)
