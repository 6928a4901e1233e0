"""The cluster files of docs/scale.md are what Ray and KubeRay accept.

tests/kuberay_rayjob.json.gz is the schema of RayJob from KubeRay's own definition (ray-project/kuberay, Apache License
2.0, helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml of August 2026) without its descriptions.
"""

import copy
import gzip
import json
import re
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
COMMAND = (
    "inception-rcnn detect s3://bucket/photos/ --output s3://bucket/results --format parquet --no-drawings --no-report "
    "--cluster auto"
)


def strict(schema):
    """Refuse fields that a schema does not know, as the server does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(one) for name, one in schema.items()}
    # Kubernetes has more formats and keeps "metadata" to itself.
    if isinstance(made.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in made:
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="module")
def rayjob():
    schema = json.loads(gzip.decompress((ROOT / "tests" / "kuberay_rayjob.json.gz").read_bytes()))
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return jsonschema.Draft202012Validator(strict(schema))


@pytest.fixture
def job():
    _, job = yaml.safe_load_all((DOCS / "kubernetes.yaml").read_text())
    return job


def test_kuberay_accepts_the_job(rayjob, job):
    assert [error.message for error in rayjob.iter_errors(job)] == []
    assert job["spec"]["entrypoint"] == COMMAND


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "imagee"), "a", "imagee"),
        (("rayClusterSpec", "workerGroupSpecs", 0, "replicas"), "eight", "eight"),
        (("rayClusterSpec", "workerGroupSpecs", 0, "template"), None, "template"),
    ],
)
def test_the_schema_refuses_mistakes(rayjob, job, path, value, told):
    part = changed = copy.deepcopy(job)["spec"]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    if value is None:
        del part[path[-1]]
    assert any(told in error.message for error in rayjob.iter_errors({**job, "spec": changed}))


def test_the_volume_is_the_one_that_the_job_names(job):
    volume, _ = yaml.safe_load_all((DOCS / "kubernetes.yaml").read_text())
    assert volume["kind"] == "PersistentVolumeClaim"
    (used,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert used["persistentVolumeClaim"]["claimName"] == volume["metadata"]["name"]


def test_ray_accepts_the_cluster():
    ray = pytest.importorskip("ray")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = yaml.safe_load((DOCS / "cluster.yaml").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(config)] == []
    assert [error.message for error in validator.iter_errors({**config, "worker_start": []})]


def test_the_command_of_the_job_is_one_of_ours():
    from typer.main import get_command

    from inception_rcnn.detect.cli.app import app

    program, *arguments = COMMAND.split()
    assert program == "inception-rcnn"
    known = {option for parameter in get_command(app).commands["detect"].params for option in parameter.opts}
    assert set(re.findall(r"--[\w-]+", " ".join(arguments))) <= known
