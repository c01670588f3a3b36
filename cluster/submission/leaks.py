"""What may not leave this machine: secrets, by a file's name or by what is in it, and files that are too large.

The patterns of keys are those of `detect-secrets`, less its detectors that guess (entropy, words such as `password`):
a refusal has no way round but to leave the file out, so it must be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.errors import UserError

FILE_LIMIT = 100 * 2**20
"""Bytes of one file."""

_NAMES = GitIgnoreSpec.from_lines(
    [
        ".env",
        ".env.*",
        "!.env.example",
        "!.env.sample",
        "!.env.template",
        "*.pem",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.keystore",
        "*.kdbx",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
        "credentials",
        "credentials.json",
        ".netrc",
        ".pgpass",
        ".pypirc",
        ".git-credentials",
        ".aws/",
        ".ssh/",
        ".kube/",
        "kubeconfig",
        "auth_token",
        "secrets.y*ml",
    ]
)
_MODULES = (
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "stripe.StripeDetector",
)
# Of this trade, and not in detect-secrets 1.5.
_MORE = (
    ("Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{34,}\b")),
    ("Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("Anthropic key", re.compile(r"\bsk-ant-[A-Za-z0-9_-]{32,}")),
)
_SAMPLE = 8192  # bytes in which a NUL makes a file binary
_SHOWN = 10


def refuse(files: Mapping[str, Path], limit: int = FILE_LIMIT) -> None:
    """Raises UserError that names each file that may not be sent. `files`: name in the package -> file here."""
    found = [f"{name} ({reason})" for name, file in sorted(files.items()) if (reason := fault(name, file, limit))]
    if not found:
        return
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise UserError(
        f"may not be sent: {', '.join(found[:_SHOWN])}{more}",
        where="package",
        mend="list them in .rehoneignore; keep secrets in the cluster's environment, large files on the storage root",
    )


def fault(name: str, file: Path, limit: int = FILE_LIMIT) -> str:
    """Why a file may not be sent; empty when it may. Raises UserError when it cannot be read."""
    if _NAMES.match_file(name):
        return "a secret, by its name"
    try:
        size = file.stat().st_size
        if size > limit:
            return f"{size / 2**20:,.0f} MiB, the limit is {limit / 2**20:,.0f}"
        return secret_in(file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read: {error}", where=str(file)) from None


def secret_in(content: bytes) -> str:
    """The kind of secret in a text; empty for none, and for a binary file."""
    if b"\0" in content[:_SAMPLE]:
        return ""
    text = content.decode("latin-1")  # every byte is a character; keys are ASCII
    return next((f"holds a {kind}" for kind, pattern in _patterns() if pattern.search(text)), "")


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return (*_MORE, *_detectors())


def _detectors() -> Iterator[tuple[str, re.Pattern[str]]]:
    from importlib import import_module

    for path in _MODULES:
        module, _, name = path.partition(".")
        detector = getattr(import_module(f"detect_secrets.plugins.{module}"), name)
        for pattern in detector.denylist:
            yield detector.secret_type, pattern
