"""The process in which a plugin is checked: it may crash or hang, and that is a finding, too.

    python -m nexus_agent.workbench.inspector FD CODE LIMIT WITHIN

CODE is `Code.document` as JSON, LIMIT and WITHIN are seconds (see `check.Patience`). It writes JSON
lines to FD: {"begin": check} before each check, {"finding": …} after it, and {"end": true} at last.
Whatever the plugin prints goes where stdout and stderr go; the stacks of a crash, and of a process
that outlives LIMIT, go to stderr.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import resource
import sys
from typing import Any, Final

from nexus_agent import discovery
from nexus_agent.plugin import Settings
from nexus_agent.workbench import declared, lifecycle, refusals
from nexus_agent.workbench.findings import Finding, failed, passed
from nexus_agent.workbench.subject import Subject, SubjectError, load

MEMORY_BYTES: Final = 4 * 1024**3
"""Address space; a plugin that wants more shall not take the machine with it."""


class Wire:
    """The line to whoever started this process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def begin(self, check: str) -> None:
        self._send({"begin": check})

    def tell(self, *findings: Finding) -> None:
        for finding in findings:
            self._send({"finding": finding.document()})

    def end(self) -> None:
        """Say that this was all, and leave: what a plugin left running must not keep us."""
        self._send({"end": True})
        os._exit(0)

    def _send(self, message: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def main(descriptor: int, code: discovery.Code, limit_s: float, within_s: float) -> None:
    """Check one plugin, and never return."""
    os.set_inheritable(descriptor, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    faulthandler.enable()
    faulthandler.dump_traceback_later(limit_s, exit=True)
    wire = Wire(descriptor)
    wire.begin("import")
    try:
        subject = load(code)
    except SubjectError as error:
        wire.tell(failed("import", str(error), "see to it that Python can import it"))
    else:
        wire.tell(passed("import", f"{code.module}:{code.attribute}"))
        _check(subject, wire, within_s)
    wire.end()


def _check(subject: Subject, wire: Wire, within_s: float) -> None:
    wire.begin("texts")
    wire.tell(declared.texts(subject.plugin))
    wire.begin("declarations")
    declarations = declared.declarations(subject.plugin)
    wire.tell(declarations)
    if not declarations.ok:
        return  # the others would stumble over it
    wire.begin("readme")
    wire.tell(declared.readme(subject))
    wire.begin("sample")
    validation = refusals.Validation(subject)
    finding, settings = refusals.sample(subject, validation)
    wire.tell(finding)
    if settings is not None:
        wire.begin("refusal")
        wire.tell(refusals.refusal(subject, validation, settings))
    wire.begin("validation")
    wire.tell(refusals.no_io(validation))
    if settings is None:
        return  # nothing to start it with

    wire.begin("lifecycle")
    asyncio.run(_at_work(subject, settings, wire, within_s))


async def _at_work(subject: Subject, settings: Settings, wire: Wire, within_s: float) -> None:
    def hopeless(seconds: float, place: str) -> None:
        wire.tell(lifecycle.blocked(seconds, place))
        wire.end()

    wire.tell(*await lifecycle.checks(subject, settings, hopeless, within_s))
    wire.end()  # here: closing the loop would wait for threads that never end


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        discovery.code_of(json.loads(sys.argv[2])),
        float(sys.argv[3]),
        float(sys.argv[4]),
    )
