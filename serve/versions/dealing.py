"""Which of two ways something goes: by a hash of its name, alike in every process."""

from __future__ import annotations

from hashlib import blake2b


def route(key: str, share: float) -> bool:
    """Whether a key is of the share: always the same way, and with a larger share these keys and some more."""
    return int(hashed(key), 16) / 2**64 < share


def hashed(key: str) -> str:
    # Not Python's hash, which differs from one process to the next.
    return blake2b(key.encode(errors="surrogatepass"), digest_size=8).hexdigest()
