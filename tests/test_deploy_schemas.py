"""Files of deploy/ read by the programs they are for, or by the schemas of these; all optional.

In an environment of its own, with Debian's docker-compose or Docker's own plugin beside it:

    python -m venv /tmp/schemas
    /tmp/schemas/bin/pip install pytest pytest-timeout pyyaml kubernetes-validate
    /tmp/schemas/bin/python -m pytest -rs --noconftest tests/test_deploy_schemas.py

`pip install skypilot` (0.14.1) there reads `skypilot.yaml`. With MAPORL_CRDS, a folder of the
operators' own definitions, their fields are read as well:
ray-operator/config/crd/bases/ray.io_rayjobs.yaml of ray-project/kuberay (v1.7.0) and
manifests/base/crds/kubeflow.org_pytorchjobs.yaml of kubeflow/training-operator (v1.9.0).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"


def compose() -> list[str]:
    """Return the command of Docker compose, version 2 or 1; skip the test without any."""
    if shutil.which("docker"):
        told = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if told.returncode == 0:
            return ["docker", "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    pytest.skip("neither `docker compose` nor docker-compose is installed")


def read_by_compose(**variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "MODEL"}
    words = [*compose(), "-f", str(COMPOSE), "config"]
    return subprocess.run(words, env=own | variables, capture_output=True, text=True, check=False)


def test_compose_reads_its_file() -> None:
    done = read_by_compose(MODEL="some/model", RANK="16")
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert services.keys() == {"server-1", "server-2", "trainer"}
    for name in ("server-1", "server-2"):
        assert {"some/model", "--max-lora-rank=16"} <= set(services[name]["command"])
    assert "--team.lora-rank=16" in services["trainer"]["command"]


def test_compose_asks_for_the_model() -> None:
    done = read_by_compose()
    assert done.returncode != 0
    assert "set MODEL to the base model" in done.stderr


def kubernetes_documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes-job.yaml").read_text()))


def test_kubernetes_accepts_the_job() -> None:
    """By its OpenAPI schema, in which an unknown field is a mistake."""
    schemas = pytest.importorskip("kubernetes_validate")
    service, job = kubernetes_documents()
    for one in (service, job):
        schemas.validate(one, schemas.latest_version(), strict=True)
    job["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(schemas.ValidationError):
        schemas.validate(job, schemas.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["kubernetes-pytorchjob.yaml", "kuberay.yaml"])
def test_kubernetes_accepts_the_pods_of_operators(name: str) -> None:
    """Their pods, as those of a Job: the operators' own fields have no schema in Kubernetes."""
    schemas = pytest.importorskip("kubernetes_validate")
    (document,) = yaml.safe_load_all((DEPLOY / name).read_text())
    for template in pod_templates(document):
        template["spec"].setdefault("restartPolicy", "OnFailure")
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
        made = {**job, "spec": {"template": template}}
        schemas.validate(made, schemas.latest_version(), strict=True)


OPERATORS = {
    "kubernetes-pytorchjob.yaml": ("kubeflow.org_pytorchjobs.yaml", "nprocPerNode"),
    "kuberay.yaml": ("ray.io_rayjobs.yaml", "shutdownAfterJobFinishes"),
}
"""Of each file: the definition that its operator registers, and a field to misspell."""


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_accepts_its_own_fields(name: str) -> None:
    """By the schema in its CustomResourceDefinition; without rules that need a cluster (CEL)."""
    jsonschema = pytest.importorskip("jsonschema")
    folder = os.environ.get("MAPORL_CRDS")
    if not folder:
        pytest.skip("MAPORL_CRDS names no folder of definitions")
    definition, field = OPERATORS[name]
    quick = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # megabytes
    spec = yaml.load((Path(folder) / definition).read_text(), Loader=quick)["spec"]
    (document,) = yaml.safe_load_all((DEPLOY / name).read_text())
    group, version = document["apiVersion"].split("/")
    assert (group, document["kind"]) == (spec["group"], spec["names"]["kind"])
    schemas = {one["name"]: one["schema"]["openAPIV3Schema"] for one in spec["versions"]}
    reader = jsonschema.Draft7Validator(strict(schemas[version]))
    assert [f"{list(one.path)}: {one.message}" for one in reader.iter_errors(document)] == []
    document["spec"][f"{field}s"] = document["spec"].pop(field)
    assert len(list(reader.iter_errors(document))) == 1


def test_skypilot_reads_its_file() -> None:
    """By its own reader, without any cloud; a misspelt field is refused."""
    sky = pytest.importorskip("sky", reason="skypilot is not installed")
    (document,) = yaml.safe_load_all((DEPLOY / "skypilot.yaml").read_text())
    task = sky.Task.from_yaml_config(dict(document))
    assert (task.name, task.num_nodes, list(task.storage_mounts)) == ("maporl", 2, ["/runs"])
    assert [one.accelerators for one in task.resources] == [{"H100": 8}]
    document["num_node"] = document.pop("num_nodes")
    with pytest.raises(ValueError, match="num_node"):
        sky.Task.from_yaml_config(document)


def strict(schema: Any) -> Any:
    """Return a Kubernetes schema as JSON Schema, in which an unknown field is a mistake."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def pod_templates(document: Any) -> list[dict[str, Any]]:
    """Return every pod template of a document."""
    if isinstance(document, list):
        return [found for one in document for found in pod_templates(one)]
    if not isinstance(document, dict):
        return []
    own = [document["template"]] if "template" in document else []
    return own + [found for one in document.values() for found in pod_templates(one)]
