"""What the RayService imports is there under that name, takes those arguments and is the deployment it configures."""

from __future__ import annotations

import importlib
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError
from ray import cloudpickle, serve
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from cluster.session import free_port
from cluster.settings import Settings
from cluster.store.registry import Registry
from cluster.store.storage import Storage
from jobs import specfile
from jobs.spec import Spec
from serve import application, endpoint, rollout
from tests import registering
from tests.k8s.schemas import K8S

from .conftest import Kept

CONFIGURATION = yaml.safe_load(
    yaml.safe_load((K8S / "base/serving/rayservice.yaml").read_text())["spec"]["serveConfigV2"]
)["applications"][0]


def test_the_service_imports_this_and_configures_its_deployment(tmp_path: Path, spec: Spec, monkeypatch) -> None:
    monkeypatch.setenv("REHONE_STORAGE", str(tmp_path / "store"))
    module, _, name = CONFIGURATION["import_path"].partition(":")
    build = getattr(importlib.import_module(module), name)
    file = tmp_path / "spec.yaml"
    file.write_text(specfile.dump(spec))
    arguments = CONFIGURATION["args"] | {"spec": str(file)}
    deployment = call_user_app_builder_with_args_if_necessary(build, arguments)._bound_deployment
    assert deployment.name == CONFIGURATION["deployments"][0]["name"]
    assert deployment.init_args[0] == spec
    assert endpoint.find(Storage(str(tmp_path / "store")), spec.name).url == CONFIGURATION["args"]["url"]


def test_a_replica_is_told_no_secret_of_the_watch(tmp_path: Path, spec: Spec, monkeypatch) -> None:
    for name, value in {"STORAGE": "store", "NOTIFY": "json://host/planted", "SPOOL": "spool"}.items():
        monkeypatch.setenv(f"REHONE_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.chdir(tmp_path)
    deployment = rollout.bound(spec, Settings.from_environment())._bound_deployment
    told = deployment.init_args[1]
    assert told == Settings(storage=str(tmp_path / "store"), tracking_uri="http://mlflow:5000", spool="spool")
    assert b"planted" not in cloudpickle.dumps(deployment)


def test_a_replica_has_the_gpus_that_its_spec_names_and_no_others(spec: Spec) -> None:
    def options(gpus: float) -> tuple[float, str | None]:
        made = rollout.bound(spec.with_values({"serving.gpus": gpus}), Settings())._bound_deployment.ray_actor_options
        return made["num_gpus"], made["runtime_env"]["env_vars"].get("CUDA_VISIBLE_DEVICES")

    assert options(0.5) == (0.5, None)  # Ray says which
    assert options(0) == (0, "")


@pytest.mark.ray
def test_serve_runs_the_manifests_configuration_with_what_the_spec_says(
    ray_session: str, taught: Kept, tmp_path: Path
) -> None:
    file, url = tmp_path / "spec.yaml", f"http://127.0.0.1:{(port := free_port())}"
    file.write_text(specfile.dump(taught.spec))
    settings = Settings(storage=str(tmp_path / "store"))
    made = registering.register(settings, taught.spec.name, taught.folder, {"dataset": "none"})
    Registry(settings).promote(taught.spec.name, made.version)
    here = {"env_vars": {"REHONE_STORAGE": settings.storage, "REHONE_SPOOL": str(tmp_path / "spool")}}
    (deployment,) = CONFIGURATION["deployments"]
    application = CONFIGURATION | {"args": {"spec": str(file)}, "runtime_env": here}
    small = {"applications": [application | {"deployments": [deployment | {"num_replicas": 1}]}]}
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        client = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(small), _blocking=True)
        rollout._wait_until_healthy(url)
        path = f"{url}/v1/models/{taught.spec.name}/predict"
        answer = httpx.post(path, json={"inputs": ["what a day"]}, timeout=60).raise_for_status().json()
        assert answer["predictions"][0]["label"] in {"negative", "positive"}
        (details,) = client.get_serve_details()["applications"][CONFIGURATION["name"]]["deployments"].values()
        took = details["deployment_config"]["ray_actor_options"]
        assert (took["num_cpus"], took["num_gpus"]) == (1, 0)
        assert took["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""
    finally:
        rollout.stop()


def test_arguments_it_does_not_know_are_refused() -> None:
    with pytest.raises(ValidationError):
        application.build({"spec": "x.yaml", "port": 1})


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_the_overlays_specs_are_specs(overlay: str) -> None:
    assert specfile.load(K8S / "overlays" / overlay / "spec.yaml").name == "sentiment"
