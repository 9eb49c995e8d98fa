"""Checksums and serial numbers of Ogg pages."""

from __future__ import annotations

import functools
import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.media.ogg import has_whole_pages, with_ogg_serial
from voxblink2_lib.records import SAMPLE_RATE_HZ


@functools.cache
def opus_stream(seconds: float) -> bytes:
    """Return a stream that libsndfile has written."""
    samples = 0.3 * np.random.default_rng(2).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    return buffer.getvalue()


@pytest.mark.parametrize("seconds", [0.04, 1.0, 11.0])
def test_checksums_are_those_of_libsndfile(seconds: float) -> None:
    data = opus_stream(seconds)
    assert has_whole_pages(data)
    serial = int.from_bytes(data[14:18], "little")
    # libsndfile wrote this serial and these checksums: writing them again changes nothing.
    assert with_ogg_serial(data, serial=serial) == data
    changed = with_ogg_serial(data, serial=0)
    assert len(changed) == len(data)
    assert changed != data
    assert has_whole_pages(changed)
    assert with_ogg_serial(changed, serial=serial) == data


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    stream = bytearray(opus_stream(1.0))
    position = data.draw(st.integers(0, len(stream) - 1))
    stream[position] ^= data.draw(st.integers(1, 255))
    assert not has_whole_pages(bytes(stream))


@given(st.data())
def test_a_truncated_stream_is_noticed(data: st.DataObject) -> None:
    stream = opus_stream(1.0)
    lengths = st.integers(1, len(stream) - 1)
    length = data.draw(lengths.filter(lambda length: stream[length : length + 4] != b"OggS"))
    assert not has_whole_pages(stream[:length])


def test_an_empty_stream_has_no_damaged_page() -> None:
    assert has_whole_pages(b"")
    assert with_ogg_serial(b"", serial=0) == b""
