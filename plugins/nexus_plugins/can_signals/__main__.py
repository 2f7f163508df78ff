"""Reads a DBC file for the agent: `python -m nexus_plugins.can_signals FILE j1939|plain`.

One line of JSON on stdout for each message (`Layout.document`). Where the file cannot be used the
reason is on stderr, and the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nexus_plugins.can_signals.database import DatabaseError, read


def main() -> None:
    """See the module."""
    _, path, kind = sys.argv
    try:
        for layout in read(Path(path), j1939=kind == "j1939"):
            sys.stdout.write(json.dumps(layout.document()) + "\n")
    except DatabaseError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
