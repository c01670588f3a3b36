"""Files as strings: `data:` URIs, as images and recordings are kept and sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def made(kind: str, form: str, raw: bytes) -> str:
    """Of an encoded file: `kind` such as image, `form` such as png."""
    return f"data:{kind}/{form};base64,{base64.b64encode(raw).decode()}"


def payload(kind: str, given: str) -> bytes:
    """The file in a URI. Raises ValueError when it is none of this kind."""
    head, _, body = given.partition(";base64,")
    if not head.startswith(f"data:{kind}/"):
        raise ValueError(f"is no {kind}: a data: URI of one begins with data:{kind}/")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ValueError(f"is no {kind}: what follows base64, is none") from None


def cell(kind: str, value: object, folder: Path) -> bytes:
    """The file that a cell of a source is, or names; none where it is missing. Raises ValueError.

    It may be a path, relative to `folder`, a URI, the bytes, or what `datasets` makes of a file.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return b""
    if isinstance(value, bytes):
        return value
    text = str(value).strip()
    if text.startswith("data:"):
        return payload(kind, text)
    path = folder / text
    if not path.is_file():
        raise ValueError(f"no such file: {text[:80]!r}")
    return path.read_bytes()
