"""The commands for authors of plugins: `nexus plugin new`, `check` and `run`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from nexus_agent.cli.errors import FAILED, MISUSED, AgentError
from nexus_agent.cli.options import NexusGroup, Options, common

if TYPE_CHECKING:
    from nexus_agent.plugin import Settings
    from nexus_agent.workbench.findings import Finding
    from nexus_agent.workbench.subject import Subject

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

NEXT_STEPS: Final = """\
{folder} is a plugin that runs:

  nexus plugin check {shown}
  nexus plugin run {shown} --once
  pytest {shown}

Then make it yours, {name}.py first: README.md and the tests follow.
"""

CHECK_HELP: Final = """Check a plugin against the contract, in a process of its own.

PLUGIN is a bundle folder with a plugin.toml, or the name of an installed plugin or of a bundle
folder here. It is started with the settings of its sample.toml, again and again, and cancelled at
each await that it comes to; nothing that it emits leaves the process.

\b
Exit codes:
  0  every check is ok
  1  a check failed
  2  there is no such plugin
"""

RUN_HELP: Final = """Run a plugin alone, without agent, broker and console.

PLUGIN is a bundle folder with a plugin.toml, or the name of an installed plugin or of a bundle
folder here. Its events go to stdout, a JSON object with type, stream and data a line; log lines
and reports go to stderr. Its state is kept in memory only. Without --settings it has those of its
sample.toml.

\b
Exit codes:
  0    the event has come, the time is over, or the plugin has returned
  1    the plugin failed, or does not end
  2    there is no such plugin, or its settings are wrong
  130  Ctrl-C
"""


class Duration(click.ParamType[float]):
    """Seconds, from `10s`, `500ms`, `2m`, `1h` or a bare number of seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", value)
        if match is None:
            self.fail(f"{value!r} is no time: use 10s, 500ms, 2m or 1h", param, ctx)
        return float(match[1]) * _UNITS[match[2] or "s"]


@click.group(cls=NexusGroup)
@common
def plugin() -> None:
    """Write, check and try plugins; start and stop those of this box."""


@plugin.command()
@common
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    default=".",
    help="Where to make it  [here]",
)
def new(name: str, folder: str) -> None:
    """Make a plugin: a folder NAME with code, manifest, sample, README and tests.

    It runs and passes its checks at once. Wrong or taken names write nothing and end with 2.
    """
    from pathlib import Path

    from nexus_agent.workbench.scaffold import ScaffoldError, make

    try:
        made = make(name, Path(folder))
    except ScaffoldError as error:
        raise AgentError(str(error), MISUSED) from None
    shown = str(made) if "/" in str(made) else f"./{made}"
    click.echo(NEXT_STEPS.format(folder=made, shown=shown, name=name), nl=False)


@plugin.command(help=CHECK_HELP)
@common
@click.argument("what", metavar="PLUGIN")
@click.pass_obj
def check(options: Options, what: str) -> None:
    from pathlib import Path

    from nexus_agent.workbench import subject
    from nexus_agent.workbench.check import check as findings_of
    from nexus_agent.workbench.findings import failed

    try:
        code = subject.find(what)
        findings = findings_of(code)
    except subject.SubjectError as error:
        if not Path(what).is_dir():
            raise AgentError(str(error), MISUSED) from None
        findings = iter([failed("manifest", str(error), "`nexus plugin new` makes one")])
    sys.exit(0 if _told(options, what, findings) else FAILED)


def _told(options: Options, what: str, findings: Iterable[Finding]) -> bool:
    """Print findings as they come, or as one document; whether all is well."""
    import json

    ok, documents = True, []
    for finding in findings:
        ok = ok and finding.ok
        documents.append(finding.document())
        if not options.as_json:
            mark = click.style("ok    ", "green") if finding.ok else click.style("failed", "red")
            click.echo(f"{mark}  {finding.check:12}  {finding.text}")
            if finding.advice:
                click.echo(f"{'':22}→ {finding.advice}")
    if options.as_json:
        click.echo(json.dumps({"plugin": what, "ok": ok, "checks": documents}))
    return ok


@plugin.command(help=RUN_HELP)
@common
@click.argument("what", metavar="PLUGIN")
@click.option("--once", is_flag=True, help="End after the first event.")
@click.option("--for", "for_s", type=Duration(), help="End after this time: 10s, 2m")
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False),
    help="TOML file with a section [plugins.NAME].",
)
@click.option("--set", "pairs", metavar="KEY=VALUE", multiple=True, help="One setting over those.")
def run(
    what: str, *, once: bool, for_s: float | None, file: str | None, pairs: tuple[str, ...]
) -> None:
    from contextlib import redirect_stdout

    from nexus_agent.settings import SettingsError
    from nexus_agent.workbench import solo, subject

    stdout = sys.stdout

    def write(line: str) -> None:
        print(line, file=stdout, flush=True)

    with redirect_stdout(sys.stderr):  # what the plugin prints is not an event
        try:
            found = subject.load(subject.find(what))
            settings = _settings(found, file, pairs)
        except (subject.SubjectError, SettingsError) as error:
            raise AgentError(str(error), MISUSED) from None
        try:
            solo.run(found, settings, write, _give_up, once=once, for_s=for_s)
        except solo.SoloError as error:
            raise AgentError(f"plugin {found.plugin.name}: {error}") from None


def _settings(found: Subject, file: str | None, pairs: tuple[str, ...]) -> Settings:
    from pathlib import Path

    from nexus_agent import sections
    from nexus_agent.workbench import subject

    name, source = found.plugin.name, Path(file or subject.SAMPLE)
    keys = found.sample() if file is None else subject.section(subject.read(source), name, source)
    given = subject.with_values(keys or {}, pairs)
    origins: dict[tuple[str, ...], str] = {
        ("plugins", name, pair.partition("=")[0]): f"--set {pair}" for pair in pairs
    }
    return sections.check(found.plugin, given, str(source), origins)


def _give_up(text: str) -> NoReturn:
    click.echo(f"nexus: {text}", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILED)
