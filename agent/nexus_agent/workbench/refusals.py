"""Checks of a plugin's settings: wrong ones are refused, and validation touches nothing.

The wrong ones are made from the model's JSON Schema.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from pydantic import ValidationError

from nexus_agent import sections
from nexus_agent.plugin import Settings
from nexus_agent.settings import SettingsError
from nexus_agent.workbench.findings import Finding, failed, passed
from nexus_agent.workbench.subject import SAMPLE, Subject, SubjectError

Keys = Mapping[str, Any]

_WRONG: Final[Mapping[str, Any]] = {
    "object": {"nonsense": True},
    "array": [{"nonsense": True}],
    "string": "nonsense",
}
"""A value by its JSON type that is wrong wherever that type is not asked for."""
_TOUCHES: Final = (
    "ctypes.dlopen",
    "glob.",
    "open",
    "os.",
    "shutil.",
    "socket.",
    "sqlite3.",
    "subprocess.",
    "tempfile.",
)
"""Beginnings of audit events (Python's "Audit events table") that are I/O."""


class Validation:
    """Validates settings with the plugin's model, and notes what it touches meanwhile."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._model = subject.plugin.settings_model
        self._listening = False
        self.touched: list[str] = []
        sys.addaudithook(self._hear)  # cannot be taken back: for a process of its own

    def validate(self, keys: Keys) -> Settings:
        """The settings; raises what the model raises."""
        with self.noting():
            return self._model.model_validate(keys)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is touched within the block."""
        stat, lstat = os.stat, os.lstat
        os.stat = self._noted(stat)  # looking for a file raises no audit event
        os.lstat = self._noted(lstat)
        self._listening = True
        try:
            yield
        finally:
            self._listening = False
            os.stat, os.lstat = stat, lstat

    def _noted(self, look: Callable[..., Any]) -> Any:
        def looking(path: Any, *args: Any, **options: Any) -> Any:
            self._hear(f"os.{look.__name__}", (path,))
            return look(path, *args, **options)

        return looking

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._listening or not event.startswith(_TOUCHES):
            return
        self._listening = False  # what follows would be heard, too
        try:
            if (place := self._place()) is not None:
                what = f"{event} {arguments[0]!r}" if arguments else event
                self.touched.append(f"{what} at {place}")
        finally:
            self._listening = True

    def _place(self) -> str | None:
        """Where the plugin does this; None where Python itself does, importing something."""
        frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the way to the caller
        found = None
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return None
            found = found or self._subject.place(frame.f_code, frame.f_lineno)
            frame = frame.f_back
        return found or self._model.__name__


def sample(subject: Subject, validation: Validation) -> tuple[Finding, Settings | None]:
    """Whether sample.toml has settings that the model accepts; they, or the defaults, or None."""
    section = f"[plugins.{subject.plugin.name}]"
    try:
        keys = subject.sample()
        with validation.noting():
            checked = sections.check(subject.plugin, keys or {}, SAMPLE)
    except (SubjectError, SettingsError) as error:
        return failed("sample", str(error), f"have a {SAMPLE} whose {section} can be used"), None
    if keys is None:
        advice = f"write one whose {section} shows every setting"
        return failed("sample", f"there is no {SAMPLE}", advice), checked
    text = subject.text(SAMPLE) or ""
    unsaid = [name for name in subject.plugin.settings_model.model_fields if name not in text]
    if unsaid:
        return failed(
            "sample", f"does not show {unsaid[0]}", "set it, or say it in a comment"
        ), checked
    return passed("sample", "is accepted, and shows every setting"), checked


def refusal(subject: Subject, validation: Validation, good: Settings) -> Finding:
    """Whether unknown keys and wrong types are refused, by ValidationError."""
    try:
        schema = subject.plugin.settings_model.model_json_schema()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is somebody else's code
        text = f"the model has no JSON Schema: {type(error).__name__}: {error}"
        return failed("refusal", text, "use types that JSON has")
    keys = good.model_dump(exclude_unset=True)
    tried = list(wrong_settings(schema))
    for name, wrong in tried:
        trouble = _unless_refused(subject, validation, {**keys, name: wrong})
        if trouble is not None:
            what, advice = trouble
            return failed("refusal", f"{name} = {wrong!r}: {what}", advice)
    for name, part in schema.get("$defs", {}).items():
        if part.get("properties") and part.get("additionalProperties") is not False:
            advice = 'give it model_config = ConfigDict(extra="forbid")'
            return failed("refusal", f"unknown keys of {name} are taken", advice)
    return passed("refusal", f"{len(tried)} wrong settings are refused")


def _unless_refused(subject: Subject, validation: Validation, keys: Keys) -> tuple[str, str] | None:
    """What happens instead, and what to do about it."""
    try:
        validation.validate(keys)
    except ValidationError:
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is somebody else's code
        what = f"the model raises {type(error).__name__} at {subject.place_of_error(error)}"
        return what, "raise ValueError in validators, and nothing else"
    return "is taken", 'give it a narrower type, and keep extra="forbid"'


def no_io(validation: Validation) -> Finding:
    """Whether validating touched anything so far."""
    if validation.touched:
        advice = "check in `run`: settings are validated on machines that have no such thing"
        return failed("validation", validation.touched[0], advice)
    return passed("validation", "touches nothing outside")


def wrong_settings(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) pairs that a model of this JSON Schema must refuse."""
    yield "nonsense", True
    for name, part in schema.get("properties", {}).items():
        kinds, free = _kinds(part, schema.get("$defs", {}))
        if not kinds:
            continue  # anything may stand there
        for kind, value in _WRONG.items():
            if kind not in kinds or (kind == "string" and not free):
                yield name, value


def _kinds(part: Mapping[str, Any], parts: Mapping[str, Any]) -> tuple[set[str], bool]:
    """JSON types that are taken, none if all are; and whether any text is, if text is."""
    if "$ref" in part:
        return _kinds(parts[part["$ref"].rpartition("/")[2]], parts)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in part:
            found = [_kinds(choice, parts) for choice in part[key]]
            if not all(kinds for kinds, _ in found):
                return set(), True
            free = any(free for kinds, free in found if "string" in kinds)
            return set().union(*(kinds for kinds, _ in found)), free
    kind = part.get("type")
    if "enum" in part or "const" in part:
        return ({kind} if isinstance(kind, str) else {"string"}), False
    return ({kind} if isinstance(kind, str) else set(kind or ())), True
