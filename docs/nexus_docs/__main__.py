"""`make reference`: write every generated part, and say which files changed.

`python -m nexus_docs figures` takes in the last run of `make bench` before that, and `python -m
nexus_docs proofs` that of `make chaos`.
"""

from __future__ import annotations

import sys

from nexus_docs import proofs, snapshot
from nexus_docs.pages import pages
from nexus_docs.snapshot import NoFiguresError

_KEEP = {"figures": snapshot.keep, "proofs": proofs.keep}


def main() -> None:
    keeping = [keep for name, keep in _KEEP.items() if name in sys.argv[1:]]
    try:
        for keep in keeping:
            print(f"wrote {keep()}")
    except NoFiguresError as error:
        sys.exit(str(error))
    for file, text in pages().items():
        old = file.read_text("utf-8") if file.exists() else ""
        if old != text:
            file.write_text(text, "utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    main()
