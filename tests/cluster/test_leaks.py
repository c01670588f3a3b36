from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from cluster.submission import leaks

# Made up, and put together here so that no scanner takes this file for a leak.
KEYS = {
    "AWS Access Key": "AKIA" + "QWERTYUIOPASDFGH",
    "GitHub Token": "ghp_" + "a1B2" * 9,
    "Hugging Face token": "hf_" + "aB3d" * 9,
    "OpenAI Token": "sk-proj-" + "a" * 20 + "T3BlbkFJ" + "b" * 20,
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "Anthropic key": "sk-ant-" + "api03-" + "x" * 40,
    "Google API key": "AIza" + "Sy" + "d" * 33,
}


@pytest.mark.parametrize(
    "name", [".env", "x/.env.local", "a/b/server.pem", "id_rsa", ".aws/config", "credentials.json"]
)
def test_a_secret_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    assert leaks.fault(name, tmp_path / "file") == "a secret, by its name"


@pytest.mark.parametrize("name", [".env.example", "environment.py", "pem.md", "tokenizer.json", "credentials.md"])
def test_what_only_sounds_like_one_is_sent(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("PASSWORD=change-me\n")
    assert leaks.fault(name, tmp_path / "file") == ""


@pytest.mark.parametrize(("kind", "key"), KEYS.items())
def test_a_secret_is_known_by_what_is_in_a_file(kind: str, key: str) -> None:
    assert leaks.secret_in(f"text before\nkey = '{key}'\nafter é".encode()) == f"holds a {kind}"


@pytest.mark.parametrize("key", KEYS.values())
def test_every_pattern_is_of_a_whole_key(key: str) -> None:
    assert leaks.secret_in(f"about {key[:9]}... in a text".encode()) == "" or "PRIVATE" in key


def test_random_hex_and_words_are_no_secrets() -> None:
    text = "password: hunter2\nsha256: " + "9f86d081884c7d65" * 4 + "\nAKIA is how they start, hf_ too\n"
    assert leaks.secret_in(text.encode()) == ""
    assert leaks.secret_in(b"\0" + KEYS["AWS Access Key"].encode()) == ""  # weights hold any bytes


def test_every_file_is_named_in_one_line_with_the_mend(tmp_path: Path) -> None:
    files = {}
    for name, text in {"ok.txt": "x", ".env": "", "big.bin": "x" * 3_000_000, "code.py": KEYS["GitHub Token"]}.items():
        (tmp_path / name).write_text(text)
        files[name] = tmp_path / name
    with pytest.raises(UserError) as caught:
        leaks.refuse(files, limit=2**20)
    assert str(caught.value).startswith(
        "package: may not be sent: .env (a secret, by its name), big.bin (3 MiB, the limit is 1), "
        "code.py (holds a GitHub Token) (list them in .rehoneignore;"
    )
    assert "\n" not in str(caught.value)
    assert KEYS["GitHub Token"] not in str(caught.value)
    leaks.refuse({"ok.txt": files["ok.txt"]})
