"""The metrics' page as Prometheus' own parser reads it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from nexus_agent.metrics import METRICS, Metric, Sample, render

BASE_UNITS = ("_seconds", "_bytes")
NOT_BASE = re.compile(r"_(ms|us|minutes|hours|days|kb|mb|kilobytes|megabytes|percent)(_|$)")

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, st.floats(allow_nan=False))
def test_labels_and_values_are_read_as_they_were_written(value: str, number: float) -> None:
    page = render([Sample("nexus_outbox_lost_events", number, {"cause": value})])
    families = {family.name: family for family in text_string_to_metric_families(page)}
    (sample,) = families["nexus_outbox_lost_events"].samples
    assert (sample.labels, sample.value) == ({"cause": value}, number)


def test_every_family_has_its_type_and_its_help() -> None:
    families = list(text_string_to_metric_families(render([])))
    assert [(f.name, f.type, f.documentation) for f in families] == [
        (m.name.removesuffix("_total") if m.kind == "counter" else m.name, m.kind, m.help)
        for m in METRICS
    ]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_keep_to_prometheus_naming(metric: Metric) -> None:
    assert re.fullmatch(r"nexus_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not NOT_BASE.search(metric.name)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


def test_a_sample_of_no_family_is_refused() -> None:
    with pytest.raises(KeyError):
        render([Sample("nexus_unheard_of", 1)])
