"""Real servers for what a cluster keeps things in: an S3-compatible object store, and PostgreSQL where there is one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.session import free_port


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < until, "the server does not answer"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment with which everybody finds a real S3 server (moto's) in a process of its own."""
    import httpx

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path_factory.mktemp("s3") / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )

    def answers() -> bool:
        try:
            return httpx.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, server)
        yield {
            "AWS_ACCESS_KEY_ID": "made-up",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage root in a new bucket."""
    import boto3

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    name = f"rehone-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/prefix"


def _postgres() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database of a real server. It refuses to run as root, so root lends it another user."""
    programs = _postgres()
    if programs is None:
        pytest.skip("no PostgreSQL here: `apt-get install postgresql`")
    folder, port = tmp_path_factory.mktemp("postgresql"), free_port()
    user = None
    if os.getuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
        shutil.chown(folder, user)
        for above in [folder, *folder.parents]:
            if above.owner() == "root" and above != Path(above.anchor):
                above.chmod(above.stat().st_mode | 0o011)  # so that it may pass through
    home = {"cwd": folder, "user": user, "env": os.environ | {"HOME": str(folder)}}
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "rehone", "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
        **home,
    )
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
            stdout=log,
            stderr=log,
            **home,
        )

    def answers() -> bool:
        import psycopg

        try:
            psycopg.connect(host="127.0.0.1", port=port, user="rehone", dbname="postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers, server)
        yield f"postgresql://rehone:a-password@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for MLflow's open connections
        server.wait()
