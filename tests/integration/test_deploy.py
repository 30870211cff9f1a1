"""What can be said of deploy/ without a cluster, and of what would be deployed."""

import argparse
import json
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from trimodal_serving.command import COMMAND, DRAIN_SECONDS
from trimodal_serving.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    tree = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    assert (tree["apiVersion"], tree["kind"]) == ("apps/v1", "Deployment")
    template = tree["spec"]["template"]
    assert tree["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


def served(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    COMMAND.configure(parser)
    return parser.parse_args(arguments)


def test_the_arguments_are_the_server_s(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    image = (DEPLOY / "Dockerfile").read_text()
    command = json.loads(re.findall(r"^CMD (\[.*\])$", image, re.MULTILINE)[0])
    for arguments in (container["args"], command):
        options = served(arguments)
        assert options.keys
        assert options.port == container["ports"][0]["containerPort"]


def test_containers_are_closed(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod["initContainers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    assert re.search(r"^USER \d+:\d+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)


def test_mounts_have_volumes_and_draining_has_time(pod: dict[str, Any]) -> None:
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["containers"], *pod["initContainers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    (container,) = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    compile(container["readinessProbe"]["exec"]["command"][2], "probe", "exec")


def test_the_service_leads_to_the_pod(pod: dict[str, Any]) -> None:
    text = (DEPLOY / "kubernetes" / "service.yaml").read_text()
    service, policy = yaml.safe_load_all(text)
    assert service["spec"]["ports"][0]["targetPort"] == pod["containers"][0]["ports"][0]["name"]
    assert policy["spec"]["egress"] == []


def test_the_dashboard_shows_series_that_there_are() -> None:
    metrics = Metrics()
    names = {"le", "reason", "route", "code", "tenant", "stage"}
    families = list(text_string_to_metric_families(metrics.render().decode()))
    known = {family.name for family in families}
    board = json.loads((DEPLOY / "grafana.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for expression in expressions:
        for series in re.findall(r"trimodal_\w+", expression):
            assert re.sub(r"_(total|bucket)$", "", series) in known
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert set(labels.split(", ")) <= names
    shown = {
        re.sub(r"_(total|bucket)$", "", s) for s in re.findall(r"trimodal_\w+", str(expressions))
    }
    assert {name for name in known if not name.endswith("_created")} <= shown


@pytest.mark.slow
def test_the_bill_of_materials_has_what_is_installed() -> None:
    subprocess.run(["make", "-C", ROOT, "sbom"], check=True, capture_output=True)
    tree = json.loads((ROOT / "dist" / "sbom.json").read_text())
    assert tree["bomFormat"] == "CycloneDX"
    assert tree["metadata"]["component"]["name"] == "trimodal"
    listed = {one["name"].lower(): one["version"] for one in tree["components"]}
    for one in distributions():
        if one.name != "trimodal":
            assert listed[one.name.lower()] == one.version
