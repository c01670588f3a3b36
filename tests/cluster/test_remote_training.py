"""The whole of it: a training sent to a cluster with a token, kept on S3, tracked in PostgreSQL; and no secret anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import httpx
import psycopg
import pytest

from jobs import specfile
from jobs.spec import Spec
from tests.planted import files, holders

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PASSWORD, KEY = ("planted-" + digits for digits in ("51c0ffee77", "9a1be0d3"))


def contents_of_bucket(root: str) -> dict[str, bytes]:
    client, bucket = boto3.client("s3"), root.removeprefix("s3://").partition("/")[0]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def rows_of_database(url: str) -> str:
    with psycopg.connect(url) as connection:
        names = [row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")]
        return "\n".join(str(connection.execute(f'select * from "{name}"').fetchall()) for name in names)


def test_a_training_sent_away_is_found_here_and_leaks_nothing(
    spec: Spec, bucket: str, postgresql: str, tmp_path: Path
) -> None:
    uri = postgresql.replace("a-password", PASSWORD)
    (tmp_path / "home").mkdir()
    project = tmp_path / "project"
    project.mkdir()
    (project / "spec.yaml").write_text(specfile.dump(spec))
    environment = os.environ | {
        "HOME": str(tmp_path / "home"),
        "REHONE_STORAGE": bucket,
        "REHONE_SPOOL": str(tmp_path / "here" / "spool"),
        "MLFLOW_TRACKING_URI": uri,
        "HF_TOKEN": KEY,
        "REHONE_NOTIFY": f"json://127.0.0.1:9/{KEY}",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment.pop("RAY_AUTH_MODE")

    def types(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rehone", *words, "--json"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    up = json.loads(types("cluster", "up", "--cpus", "4").stdout)
    try:
        done = types("train", "spec.yaml", "--address", up["address"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["version"] == 1
        assert "MLFLOW_TRACKING_URI holds a password and is not sent" in done.stderr
        (version,) = json.loads(types("models", "tiny").stdout)
        assert version["aliases"] == ["champion"]
        assert version["source"].startswith(bucket)
        token = (tmp_path / "home" / ".ray" / "auth_token").read_text()
        api = httpx.get(f"{up['address']}/api/jobs/", headers={"Authorization": f"Bearer {token}"}).text
        written = {"the job API": api.encode(), "PostgreSQL": rows_of_database(uri).encode()}
        written |= contents_of_bucket(bucket)
        assert any("tables/journal/" in name for name in written)  # the verdict and the promotion
        written |= dict(files(Path(up["folder"]), tmp_path))
        assert len(written) > 50
        for secret in (PASSWORD, KEY, token):
            assert holders(secret, written.items()) <= {str(tmp_path / "home" / ".ray" / "auth_token")}
    finally:
        types("cluster", "down")
