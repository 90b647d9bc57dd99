"""The manifests as kustomize builds them, against the published schemas and against what the shop needs."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.containers import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZE = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
# The oldest that is still supported, and the newest that has a schema.
VERSIONS = ("1.33", "1.37")
OVERLAYS = ("production", "demo", "bucket")
# Production with its files in S3, as docs/operations/kubernetes.md says.
BUCKET = {"resources": ["../production"], "components": ["../../components/bucket"]}
# Of KEDA and of the Prometheus operator, whose schemas no package has: what they need is tested by hand.
FOREIGN = ("ScaledObject", "PodMonitor")

pytestmark = [
    pytest.mark.operations,
    pytest.mark.skipif(shutil.which(KUSTOMIZE[0]) is None, reason="needs kustomize or kubectl on the PATH"),
]

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the manifests and write the secrets that are not in them, as docs/operations/kubernetes.md says."""
    copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(FOLDER, copy)
    overlay = copy / "overlays" / "production"
    shutil.copy(overlay / "secrets.env.example", overlay / "secrets.env")
    (copy / "overlays" / "bucket").mkdir()
    (copy / "overlays" / "bucket" / "kustomization.yaml").write_text(yaml.safe_dump(BUCKET))
    return copy


@cache
def built(overlay: Path) -> list[Manifest]:
    text = subprocess.run([*KUSTOMIZE, overlay], capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


@pytest.fixture(params=OVERLAYS)
def manifests(folder: Path, request: pytest.FixtureRequest) -> list[Manifest]:
    return built(folder / "overlays" / request.param)


@pytest.fixture
def production(folder: Path) -> list[Manifest]:
    return built(folder / "overlays" / "production")


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {it["metadata"]["name"]: it for it in manifests if it["kind"] in kinds}


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {name: it["spec"]["template"]["spec"] for name, it in of_kind(manifests, "Deployment", "Job").items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_published_schemas(manifests: list[Manifest], version: str) -> None:
    ours = [manifest for manifest in manifests if manifest["kind"] not in FOREIGN]

    for manifest in ours:
        kubernetes_validate.validate(manifest, version, strict=True)

    assert len(ours) > 20


def test_pods_may_do_no_more_than_the_restricted_standard_allows(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        # Else a service named `sandbox` would set SANDBOX_PORT.
        assert not pod["enableServiceLinks"], name
        assert not pod["automountServiceAccountToken"], name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"].keys() == {"memory"}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name


def test_images_have_a_tag(manifests: list[Manifest]) -> None:
    """Without one it is `latest`, which Kubernetes pulls anew from a registry even where the image is there."""
    images = {
        it["image"] for pod in pods(manifests).values() for it in [*pod["containers"], *pod.get("initContainers", [])]
    }

    assert [image for image in images if ":" not in image] == []


def test_pods_mount_only_volumes_that_they_have(manifests: list[Manifest]) -> None:
    claims = of_kind(manifests, "PersistentVolumeClaim")

    for pod in pods(manifests).values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        wanted = {it["persistentVolumeClaim"]["claimName"] for it in volumes.values() if "persistentVolumeClaim" in it}
        assert mounts == volumes.keys()
        assert wanted <= claims.keys()


def test_bucket_takes_the_place_of_the_shared_volume(folder: Path, production: list[Manifest]) -> None:
    def media(manifests: list[Manifest]) -> dict[str, Manifest]:
        volumes = {name: {it["name"]: it for it in pod["volumes"]} for name, pod in pods(manifests).items()}
        return {name: its["media"] for name, its in volumes.items() if "media" in its}

    bucket = built(folder / "overlays" / "bucket")

    shared = {"name": "media", "persistentVolumeClaim": {"claimName": "media"}}
    assert all(volume == shared for volume in media(production).values())
    assert media(bucket) == {name: {"name": "media", "emptyDir": {}} for name in media(production)}
    assert of_kind(production, "PersistentVolumeClaim").keys() == {"media"}
    assert of_kind(bucket, "PersistentVolumeClaim") == {}


def test_every_process_of_the_shop_finds_certificates_where_there_are_any(manifests: list[Manifest]) -> None:
    """The checks that come before migrations look at them, too."""
    others = {"postgres", "redis", "sandbox"}
    ours = {name: pod for name, pod in pods(manifests).items() if name not in others}

    for name, pod in ours.items():
        secrets = {it["name"]: it["secret"] for it in pod["volumes"] if "secret" in it}
        assert {it["secretName"] for it in secrets.values()} == {"certificates", "trusted-certificates"}, name
        # For root, who owns them, and for the group of the pod.
        assert all(it["optional"] and it["defaultMode"] == 0o440 for it in secrets.values()), name
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"], name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            mounts = {it["mountPath"]: it["name"] for it in container["volumeMounts"]}
            assert secrets[mounts["/certificates/own"]]["secretName"] == "certificates", name
            assert secrets[mounts["/certificates/trusted"]]["secretName"] == "trusted-certificates", name
    assert len(ours) == 9


def test_beat_is_one_and_leaves_before_the_next_one_comes(manifests: list[Manifest]) -> None:
    beat = of_kind(manifests, "Deployment")["beat"]["spec"]

    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def test_labels_let_the_workers_be_upgraded_first(production: list[Manifest]) -> None:
    """By `app!=web,app!=live,app!=beat,app!=flower`, which leaves nothing out that workers need."""
    labels = [(it["kind"], it["metadata"].get("labels", {}).get("app")) for it in production]

    assert [kind for kind, app in labels if app in ("web", "live", "beat", "flower")] == ["Deployment"] * 4
    assert labels.count(("Deployment", "worker")) == 4


def test_every_long_runner_is_probed(production: list[Manifest]) -> None:
    for name, it in of_kind(production, "Deployment").items():
        container = it["spec"]["template"]["spec"]["containers"][0]
        asked = [probe for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe in container]
        role = "worker" if name.startswith("worker-") else name
        if role in ("worker", "beat"):
            command = ["python", "-S", "deploy/alive.py", role]
            assert asked == ["startupProbe", "livenessProbe"]
            assert [container[probe]["exec"]["command"] for probe in asked] == [command, command]
        else:
            assert asked[-2:] == ["livenessProbe", "readinessProbe"]
    web = pods(production)["web"]["containers"][0]
    paths = [web[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    # A broker or a database that is away is away for all pods: none may leave for it.
    assert paths == ["/healthz/live"] * 3


def test_selectors_find_their_pods(manifests: list[Manifest]) -> None:
    templates = {
        name: it["spec"]["template"]["metadata"]["labels"] for name, it in of_kind(manifests, "Deployment").items()
    }

    def chosen(selector: dict[str, str]) -> set[str]:
        return {name for name, labels in templates.items() if selector.items() <= labels.items()}

    for name, it in of_kind(manifests, "Deployment").items():
        assert chosen(it["spec"]["selector"]["matchLabels"]) == {name}
    for name, it in of_kind(manifests, "Service").items():
        assert chosen(it["spec"]["selector"]) == {name}
    for name, it in of_kind(manifests, "PodDisruptionBudget").items():
        assert chosen(it["spec"]["selector"]["matchLabels"]) == {name}


def test_only_named_peers_may_connect(production: list[Manifest]) -> None:
    policies = of_kind(production, "NetworkPolicy")

    assert policies["nobody"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    entries = {name: policy["spec"].get("ingress", []) for name, policy in policies.items()}
    names = {
        name: rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for name, rules in entries.items()
        for rule in rules
    }
    assert names == {"visitors": "traefik", "challenges": "traefik", "metrics": "monitoring"}
    # Workers and beat accept no other connections.
    visited = policies["visitors"]["spec"]["podSelector"]["matchExpressions"][0]["values"]
    assert visited == ["web", "live", "flower"]
    # What cert-manager's pods are called, and where they listen.
    assert policies["challenges"]["spec"]["podSelector"] == {
        "matchLabels": {"acme.cert-manager.io/http01-solver": "true"}
    }
    assert policies["challenges"]["spec"]["ingress"][0]["ports"] == [{"port": 8089}]


def test_no_secret_of_production_is_in_the_repository() -> None:
    overlay = FOLDER / "overlays" / "production"
    example = (overlay / "secrets.env.example").read_text()

    assert "secrets.env" in (overlay / ".gitignore").read_text().splitlines()
    filled = [line.split("=")[0] for line in example.splitlines() if line.partition("=")[2] and line[0] != "#"]
    assert filled == ["DATABASE_URL", "CELERY_BROKER_URL"]
    assert "example.com" in example


def test_environment_names_only_variables_that_the_example_explains(manifests: list[Manifest]) -> None:
    known = {line[2:].split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line}
    ours = {"FAMILY", "QUEUES", "CONCURRENCY", "POSTGRES_USER", "POSTGRES_DB", "REDISCLI_AUTH"}
    of_celery = {"REMAP_SIGTERM"}

    given = {name for it in of_kind(manifests, "ConfigMap", "Secret").values() for name in it["data"]}
    given |= {
        pair["name"] for pod in pods(manifests).values() for it in pod["containers"] for pair in it.get("env", [])
    }

    assert given - known - ours - of_celery == set()


def test_scaled_objects_count_what_runs_and_how_old_the_oldest_is(production: list[Manifest]) -> None:
    scaled = of_kind(production, "ScaledObject")
    workers = {name: pod for name, pod in pods(production).items() if name.startswith("worker-")}

    assert scaled.keys() == workers.keys()
    for name, it in scaled.items():
        spec = it["spec"]
        env = {pair["name"]: pair["value"] for pair in workers[name]["containers"][0]["env"]}
        queues = env["QUEUES"].replace(",", "|")
        assert it["apiVersion"] == "keda.sh/v1alpha1"
        assert spec["scaleTargetRef"] == {"name": name}
        assert 1 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        load, age = [trigger["metadata"] for trigger in spec["triggers"]]
        assert {trigger["type"] for trigger in spec["triggers"]} == {"prometheus"}
        assert f'shop_queue_waiting{{queue=~"{queues}"}} + shop_queue_running{{queue=~"{queues}"}}' in load["query"]
        assert f'shop_queue_oldest_seconds{{queue=~"{queues}"}}' in age["query"]
        assert all(float(trigger["threshold"]) > 0 and trigger["serverAddress"] for trigger in (load, age))
        # A broker or a Prometheus that is away looks like an empty queue else, and takes workers away.
        assert {trigger["ignoreNullValues"] for trigger in (load, age)} == {"false"}
        assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
        # What scales sets the number of replicas, and no manifest sets it back.
        assert "replicas" not in of_kind(production, "Deployment")[name]["spec"]
    assert "replicas" not in of_kind(production, "Deployment")["web"]["spec"]


def test_prometheus_finds_each_pod_under_the_job_that_the_rules_know(production: list[Manifest]) -> None:
    jobs = {it["job_name"] for it in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]}
    secret = next(name for name in of_kind(production, "Secret") if name.startswith("secrets-"))
    templates = [it["spec"]["template"] for it in of_kind(production, "Deployment").values()]
    measured = {}

    for monitor in of_kind(production, "PodMonitor").values():
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        # Under the name that kustomize has given it.
        assert endpoint["authorization"] == {"credentials": {"name": secret, "key": "METRICS_TOKEN"}}
        assert (monitor["apiVersion"], endpoint["path"]) == ("monitoring.coreos.com/v1", "/metrics")
        for template in templates:
            labels, [container] = template["metadata"]["labels"], template["spec"]["containers"]
            if labels["app"] in apps(monitor["spec"]["selector"]):
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                measured[labels[monitor["spec"]["jobLabel"]]] = ports[endpoint["port"]]

    assert measured.keys() == jobs
    policy = of_kind(production, "NetworkPolicy")["metrics"]["spec"]
    assert apps(policy["podSelector"]) == jobs
    assert {port["port"] for port in policy["ingress"][0]["ports"]} == set(measured.values())


def apps(selector: Manifest) -> set[str]:
    """Return the values of the label `app` that a selector chooses."""
    labels: dict[str, str] = selector.get("matchLabels", {})
    return set(labels.values()) | {value for it in selector.get("matchExpressions", []) for value in it["values"]}


def test_queries_of_the_scaled_objects_are_promql(production: list[Manifest], tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, which comes with prometheus")
    triggers = [it for scaled in of_kind(production, "ScaledObject").values() for it in scaled["spec"]["triggers"]]
    queries = [trigger["metadata"]["query"] for trigger in triggers]
    rules = [{"record": f"scale:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "scaling", "rules": rules}]}))

    checked = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
