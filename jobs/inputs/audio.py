"""Recordings as inputs: `data:` URIs of the encoded file. Read with libsndfile: WAV, FLAC, OGG, MP3.

A model hears one channel at 16,000 samples a second, whatever was recorded.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterable, Sequence
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from . import Change, uris

NAME, UNIT = "audio", "seconds"
RATE = 16_000

SECONDS, LOUDNESS, PEAK, CROSSINGS = "seconds", "loudness", "peak", "zero crossings"
DESCRIPTORS = (SECONDS, LOUDNESS, PEAK, CROSSINGS)

_LONGEST = 600.0  # seconds: a small file can say that it is a long recording
_FORMS = {"WAVEX": "wav", "MP3": "mpeg"}


def read(value: object, folder: Path) -> str:
    """A cell as a `data:` URI: it may be a path, such a URI, the bytes, or what `datasets` makes of a recording."""
    raw = uris.cell(NAME, value, folder)
    return uri(raw) if raw else ""


def sent(recording: str) -> str:
    """A `data:` URI that can be heard."""
    return uri(uris.payload(NAME, recording))


def uri(raw: bytes) -> str:
    """The input of an encoded recording. Raises ValueError when it is none that can be read."""
    with _file(raw) as file:
        form = str(file.format)
    heard_of(raw)
    return uris.made(NAME, _FORMS.get(form, form.lower()), raw)


def heard(recording: str) -> NDArray[np.float32]:
    """Samples from -1 to 1, shape (RATE x seconds,). Raises ValueError when the input is none."""
    return heard_of(uris.payload(NAME, recording))


def heard_of(raw: bytes) -> NDArray[np.float32]:
    """The same of an encoded file."""
    from scipy.signal import resample_poly

    with _file(raw) as file:
        if file.frames > _LONGEST * file.samplerate:
            raise ValueError(f"is a recording of {file.frames / file.samplerate:.0f} s, more than {_LONGEST:g}")
        try:
            samples, rate = file.read(dtype="float32", always_2d=True).mean(1), file.samplerate
        except soundfile.LibsndfileError as error:
            raise ValueError("is no recording that can be read") from error
    if not len(samples):
        raise ValueError("is a recording of nothing")
    if rate == RATE:
        return np.asarray(samples)
    shared = gcd(RATE, rate)
    return np.asarray(resample_poly(samples, RATE // shared, rate // shared), np.float32)


def encoded(samples: NDArray[np.float32]) -> str:
    """An input of samples at RATE."""
    out = io.BytesIO()
    soundfile.write(out, samples, RATE, format="WAV", subtype="PCM_16")
    return uris.made(NAME, "wav", out.getvalue())


def key(recording: str) -> str:
    """A digest of what is heard, however it was encoded."""
    return hashlib.sha256((heard(recording) * 2**15).round().astype("<i4").tobytes()).hexdigest() if recording else ""


def shown(recording: str) -> str:
    """A name that only this recording has."""
    return f"audio {key(recording)[:16]}" if recording else ""


def size(recording: str) -> int:
    """Whole seconds."""
    return round(len(heard(recording)) / RATE) if recording else 0


def topics(recordings: Sequence[str], count: int, seed: int = 0) -> list[str]:  # noqa: ARG001 - none are looked for
    """None: what would be alike in recordings is seldom what is said."""
    return [""] * len(recordings)


def vocabulary(recordings: Iterable[str]) -> list[str]:  # noqa: ARG001 - nothing is to be known of them
    """Nothing."""
    return []


def describe(recordings: Sequence[str], vocabulary: Iterable[str] = ()) -> pd.DataFrame:  # noqa: ARG001
    """Seconds, root mean square and peak (0 to 1), share of samples at which the sign changes."""
    rows = []
    for recording in recordings:
        samples = heard(recording)
        signs = np.mean(np.diff(np.signbit(samples))) if len(samples) > 1 else 0.0
        rows.append([len(samples) / RATE, np.sqrt(np.mean(samples**2)), np.abs(samples).max(), signs])
    return pd.DataFrame(rows, columns=list(DESCRIPTORS), dtype=float)


def _volume(recording: str, draw: random.Random) -> str:
    """Half as loud, or up to twice where that is not cut off."""
    samples = heard(recording)
    return encoded(samples * min(draw.choice([0.5, 2.0]), 1 / max(1e-6, float(np.abs(samples).max()))))


def _noise(recording: str, draw: random.Random) -> str:
    """White noise 20 dB below what is heard."""
    samples = heard(recording)
    loud = float(np.sqrt(np.mean(samples**2)))
    noise = np.random.default_rng(draw.randrange(2**32)).normal(0, loud / 10, len(samples))
    return encoded(np.clip(samples + noise, -1, 1).astype(np.float32))


def _silence(recording: str, draw: random.Random) -> str:
    """Up to a tenth of a second of nothing before it and after it."""
    before, after = (np.zeros(draw.randrange(RATE // 10), np.float32) for _ in range(2))
    return encoded(np.concatenate([before, heard(recording), after]))


CHANGES: dict[str, Change] = {"volume": _volume, "noise": _noise, "silence": _silence}


def _file(raw: bytes) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(io.BytesIO(raw))
    except soundfile.LibsndfileError as error:
        raise ValueError("is no recording that can be read") from error
