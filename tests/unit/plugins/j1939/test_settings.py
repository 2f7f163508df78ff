from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nexus_plugins.j1939.settings import J1939Settings


def test_a_channel_is_all_that_must_be_given() -> None:
    settings = J1939Settings(channel="can0")

    assert (settings.interface, settings.address, settings.listen_only) == (
        "socketcan",
        0xF9,
        False,
    )


@pytest.mark.parametrize(
    "wrong",
    [{"address": 0xFE}, {"address": 0x00}, {"spn_method": 4}, {"gone_s": -1}, {"listen_s": 0}],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        J1939Settings(channel="can0", **wrong)
