from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.inputs import audio


def sound(seconds: float = 0.5, rate: int = audio.RATE, pitch: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def file(samples: np.ndarray, rate: int = audio.RATE, form: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form)
    return out.getvalue()


@pytest.mark.parametrize(("form", "kind"), [("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"), ("MP3", "mpeg")])
def test_every_form_is_heard(form: str, kind: str) -> None:
    made = audio.uri(file(sound(), form=form))
    assert made.startswith(f"data:audio/{kind};base64,")
    heard = audio.heard(made)
    assert heard.dtype == np.float32
    assert len(heard) / audio.RATE == pytest.approx(0.5, abs=0.1)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.1)


def test_the_same_sound_has_one_key_however_it_is_kept() -> None:
    whole = (sound() * 2**15).astype(np.int16)  # in whole steps: the forms round what lies between them each their way
    wav, flac = (audio.uri(file(whole, form=form)) for form in ("WAV", "FLAC"))
    assert audio.key(wav) == audio.key(flac) != audio.key(audio.encoded(sound(pitch=450)))
    assert audio.shown(wav).startswith("audio ")
    assert (audio.key(""), audio.shown(""), audio.size("")) == ("", "", 0)


def test_channels_become_one_and_the_rate_is_the_models() -> None:
    both = np.stack([sound(rate=44_100), np.zeros(22_050, np.float32)], 1)
    heard = audio.heard(audio.uri(file(both, 44_100)))
    assert len(heard) == pytest.approx(8000, abs=2)
    pitch = np.abs(np.fft.rfft(heard)).argmax() * audio.RATE / len(heard)
    assert pitch == pytest.approx(440, abs=2)
    assert np.abs(heard).max() == pytest.approx(0.25, abs=0.02)


def test_cells_are_paths_bytes_or_what_datasets_makes(tmp_path: Path) -> None:
    raw = file(sound())
    (tmp_path / "a.wav").write_bytes(raw)
    whole = audio.uri(raw)
    for cell in ("a.wav", raw, {"bytes": raw, "path": None}, {"path": "a.wav"}, whole):
        assert audio.read(cell, tmp_path) == whole
    assert audio.read(None, tmp_path) == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/etc/hostname", "is no audio: a data: URI of one begins with data:audio/"),
        ("data:audio/wav;base64,!", "what follows base64, is none"),
        ("data:audio/wav;base64,AAAA", "is no recording that can be read"),
        (
            f"data:audio/wav;base64,{__import__('base64').b64encode(file(np.zeros(0, np.float32))).decode()}",
            "of nothing",
        ),
    ],
)
def test_what_is_sent_and_cannot_be_heard_is_refused(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        audio.sent(given)


def test_a_recording_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="is a recording of 601 s, more than 600"):
        audio.uri(file(np.zeros(601 * 100, np.float32), 100))


def test_descriptors() -> None:
    loud, quiet = audio.encoded(sound(1.0)), audio.encoded(sound(0.25, pitch=880) / 5)
    found = audio.describe([loud, quiet])
    assert list(found.columns) == list(audio.DESCRIPTORS)
    assert found[audio.SECONDS].tolist() == [1.0, 0.25]
    assert found[audio.LOUDNESS].tolist() == pytest.approx([0.354, 0.071], abs=0.01)
    assert found[audio.CROSSINGS].tolist() == pytest.approx([880 / audio.RATE, 1760 / audio.RATE], rel=0.05)


@pytest.mark.parametrize("name", list(audio.CHANGES))
def test_changes_are_heard_as_the_same_by_a_person(name: str) -> None:
    given = audio.encoded(sound(1.0))
    changed = audio.CHANGES[name](given, random.Random(1))
    assert changed != given
    before, after = audio.heard(given), audio.heard(changed)
    assert np.abs(after).max() <= 1
    pitch = np.abs(np.fft.rfft(after)).argmax() * audio.RATE / len(after)
    assert pitch == pytest.approx(440, abs=3)
    assert len(before) <= len(after) <= len(before) + audio.RATE // 5
