from __future__ import annotations

import orjson
import zstandard

from nexus_agent.protocol import DICTIONARY
from nexus_agent.protocol.compression import compress
from nexus_demo import dictionary


def test_training_can_be_repeated() -> None:
    trained = dictionary.train()
    assert trained == dictionary.train()
    assert zstandard.ZstdCompressionDict(trained).dict_id() == DICTIONARY
    assert len(trained) == dictionary.SIZE


def test_what_it_has_not_seen_takes_less_than_half() -> None:
    unseen = list(dictionary.lines(seed=7))[:600]
    sizes: dict[str, list[int]] = {}
    for line in unseen:
        plain = len(zstandard.ZstdCompressor(level=3).compress(line))
        both = sizes.setdefault(orjson.loads(line)["type"], [0, 0])
        both[0] += len(compress(line))
        both[1] += plain
    assert len(sizes) > 7
    assert all(small < plain * 0.55 for small, plain in sizes.values()), sizes
