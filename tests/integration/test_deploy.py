"""What can be said of deploy/ without a cluster, and of what would be deployed."""

import argparse
import json
import re
import subprocess
import sysconfig
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client.parser import text_string_to_metric_families

from trimodal_serving.command import COMMAND, DRAIN_SECONDS
from trimodal_serving.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    tree = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    template = tree["spec"]["template"]
    assert tree["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


def served(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    COMMAND.configure(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_of_the_schemas_of_kubernetes(path: Path, version: str) -> None:
    for tree in yaml.safe_load_all(path.read_text()):
        assert kubernetes_validate.validate(tree, version, strict=True) == version


def test_what_a_schema_does_not_know_is_refused() -> None:
    (tree,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    tree["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenessprobe"):
        kubernetes_validate.validate(tree, "1.37", strict=True)


def hadolint(text: str) -> tuple[int, str]:
    result = subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert hadolint(text) == (0, "")
    code, problems = hadolint(re.sub(r"python:\S+", "python", text))
    assert code == 1
    assert "DL3006" in problems


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
    names = {"le", "reason", "route", "code", "tenant", "stage", "model"}
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


def pins(name: str) -> dict[tuple[str, str], tuple[str, set[str]]]:
    """Markers and hashes of a list in requirements/, by name and version."""
    text = (ROOT / "requirements" / name).read_text()
    found = {}
    for block in re.split(r"\n(?=\S)", text.replace("\\\n", "")):
        pin = re.match(r"([\w.-]+)==(\S+)(?: ; (.*?))? +--hash", block)
        assert pin is not None, block
        hashes = set(re.findall(r"--hash=(sha256:\w+)", block))
        found[pin[1], pin[2]] = (pin[3] or "", hashes)
    return found


def needed(name: str, extras: Sequence[str], seen: dict[str, set[str]]) -> None:
    """Put what an installed distribution needs here, itself included, into `seen`."""
    new = {"", *extras} - seen.setdefault(canonicalize_name(name), set())
    seen[canonicalize_name(name)] |= new
    for line in distribution(name).requires or () if new else ():
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in new):
            needed(one.name, sorted(one.extras), seen)


def test_the_image_holds_what_serving_needs_as_it_is_locked() -> None:
    assert "-r requirements/serving.txt" in (DEPLOY / "Dockerfile").read_text()
    image, lock = pins("serving.txt"), pins("lock.txt")
    for pin, (_, hashes) in image.items():
        assert lock[pin][1] == hashes
    seen: dict[str, set[str]] = {}
    needed("trimodal", ["serving"], seen)
    here = {
        name for (name, _), (marker, _) in image.items() if not marker or Marker(marker).evaluate()
    }
    assert here == set(seen) - {"trimodal"}
