"""Which keys have changed, and what is in force after some of them were taken in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.config import AgentConfig, MetricsSection
from nexus_agent.reload import _merged, changes
from nexus_agent.settings import SettingsError, load

LIVE = ("link", "log")

configs = st.builds(
    lambda url, proxy, level, day, quota, quiet: AgentConfig.model_validate(
        {
            "broker": {"url": url, "proxy": proxy},
            "log": {"level": level},
            "link": {"day_mb": {"log": day}, "quiet_hours": quiet},
            "outbox": {"quota_mb": quota},
        }
    ),
    st.sampled_from(["mqtts://a", "mqtts://b"]),
    st.sampled_from([None, "http://u:one@p:1", "http://u:two@p:1"]),
    st.sampled_from(["info", "debug"]),
    st.sampled_from([0, 5]),
    st.sampled_from([16, 17]),
    st.sampled_from([[], ["08:00-12:00"]]),
)


def at(config: AgentConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


@given(configs, configs)
def test_the_keys_that_differ_are_the_ones_that_are_named(
    old: AgentConfig, new: AgentConfig
) -> None:
    named = list(changes(old, new))
    assert all(at(old, key) != at(new, key) for key in named)
    assert (not named) == (old == new)


@given(configs, configs)
def test_what_waits_for_a_restart_stays_as_it_was_and_is_named_again(
    old: AgentConfig, new: AgentConfig
) -> None:
    waiting = [key for key in changes(old, new) if not key.startswith(LIVE)]
    in_force = _merged(old, new, waiting)
    assert all(at(in_force, key) == at(old, key) for key in waiting)
    assert list(changes(in_force, new)) == waiting
    assert sorted([*changes(old, in_force), *waiting]) == sorted(changes(old, new))


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.8.8.8:1", ("127.8.8.8", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_loopback_addresses_may_be_listened_at(listen: str, address: tuple[str, int]) -> None:
    assert MetricsSection(listen=listen).address == address
    assert MetricsSection().address is None


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("0.0.0.0:9464", "other machines could reach 0.0.0.0, and nobody is asked for a password"),
        ("192.168.1.7:9464", "must be a loopback address such as 127.0.0.1"),
        ("[::]:9464", "must be a loopback address such as 127.0.0.1"),
        ("localhost:9464", "must be an address and a port such as 127.0.0.1:9464"),
        ("127.0.0.1", "must be an address and a port"),
        ("127.0.0.1:0", "must be an address and a port"),
        ("127.0.0.1:65536", "must be an address and a port"),
        ("127.0.0.1:\u0663", "must be an address and a port"),
        (":9464", "must be an address and a port"),
        ("", "must be an address and a port"),
    ],
)
def test_other_addresses_are_refused_in_words(tmp_path: Path, listen: str, message: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'[broker]\nurl = "mqtts://b"\n[metrics]\nlisten = "{listen}"\n', "utf-8")
    with pytest.raises(SettingsError) as refusal:
        load(AgentConfig, file, {})
    assert str(refusal.value).startswith(f"{file}: metrics.listen: ")
    assert message in str(refusal.value)
