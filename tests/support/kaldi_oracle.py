"""Log-mel frames by kaldi-native-fbank, which is independent of ours."""

from __future__ import annotations

from typing import Any

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def kaldi_energies(samples: Any, window: str = "hamming") -> Array:
    """Return log energies of 80 bands, shape (frames, 80), of samples at the scale of int16."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = 80
    options.energy_floor = 0
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(16_000, np.asarray(samples, np.float64).tolist())
    fbank.input_finished()
    return np.array([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])
