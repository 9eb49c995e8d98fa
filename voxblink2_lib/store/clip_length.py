"""How many samples a clip has, by its own header: of those whose times do not say it."""

from __future__ import annotations

import io

from voxblink2_lib.errors import StoreDamagedError

# Of the first block of FLAC: rate, channels, bits and, in 36 bits, the number of samples.
_FLAC = b"fLaC"
_COUNT_START, _COUNT_END, _COUNT_MASK = 18, 26, (1 << 36) - 1


def samples_in(clip: bytes | memoryview) -> int:
    """Return the number of samples of a clip at 16 kHz.

    Args:
        clip: FLAC, WAV or Opus, encoded.

    Raises:
        StoreDamagedError: it is none of these.
    """
    if bytes(clip[:4]) == _FLAC:
        return int.from_bytes(clip[_COUNT_START:_COUNT_END], "big") & _COUNT_MASK
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(clip)) as file:
            return int(file.frames)
    except soundfile.SoundFileError as error:
        raise StoreDamagedError(f"a clip does not decode: {error}") from error
