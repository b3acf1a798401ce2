"""docker-compose.yml and what it mounts: each profile read by the real Compose, held against what a
hardened service has, and its settings against the gateway itself. The Dockerfile under hadolint.

Run with the Python of tests/clients/install's `deploy-venv`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOOLS = Path(os.environ.get("TW_TEST_TOOLS", ROOT / "tests/clients/.tools"))
GATEWAYS = ["gateway", "gateway-postgres", "demo", "demo-login", "demo-key"]
PROFILES = {
    "": {"gateway"},
    "postgres": {"gateway", "gateway-postgres", "postgres"},
    "sim": {"gateway", "sim", "demo-login", "demo-key", "demo"},
    "observability": {"gateway", "prometheus", "alertmanager", "grafana", "otel-collector", "tempo"},
}


def compose(*arguments, env_file="/dev/null"):
    # Nobody's .env counts here.
    command = [BIN / "docker-compose", "--env-file", env_file, "-f", ROOT / "docker-compose.yml", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")})
    assert done.returncode == 0 and not done.stderr, f"{arguments}: {done.stderr}"
    return done.stdout


def profiles():
    for profile, services in PROFILES.items():
        chosen = ["--profile", profile] if profile else []
        compose(*chosen, "config", "--quiet")
        listed = set(compose(*chosen, "config", "--services").split())
        assert listed == services, f"profile {profile or 'none'}: {listed}"
        print(f"profile {profile or 'none'}: {len(listed)} services")


def hardened(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and not service.get("cap_add"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].split(":")[0] not in ["0", "root"], name
        assert not service.get("privileged") and service.get("network_mode") != "host", name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["cpus"] and limits["memory"] and limits["pids"], name
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", service["image"]), f"{name}: {service['image']} is not pinned"
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", f"{name}: {port}"
            assert port["target"] != 9464, f"{name} publishes operations"
        for source in [v["source"] for v in service.get("volumes", []) if v["type"] == "bind"]:
            # Alerts and dashboards are the chart's.
            assert Path(source).exists() or "/helm/tollway/" in source, f"{name} mounts {source}, which is not there"


def orderly(services):
    wanted = {
        ("gateway-postgres", "postgres"): "service_healthy",
        ("demo-login", "sim"): "service_healthy",
        ("demo-key", "demo-login"): "service_completed_successfully",
        ("demo", "demo-key"): "service_completed_successfully",
    }
    for (name, other), condition in wanted.items():
        assert services[name]["depends_on"][other]["condition"] == condition, name
    for name in GATEWAYS[:3]:
        assert services[name]["stop_grace_period"] == "50s", "25s of drain and 25s for the last writes"
        assert services[name]["healthcheck"]["test"] == ["CMD", "/usr/local/bin/tollway", "healthcheck"]


def check_settings(name, settings, directory):
    env = {"PATH": os.environ["PATH"], **{k: v for k, v in settings.items() if v is not None}}
    env = {k: v.replace("/run/secrets/", f"{directory}/") for k, v in env.items()}
    done = subprocess.run([os.environ["TW_TOLLWAY"], "config", "check"], env=env, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, f"{name}: {done.stderr}"


def secrets_and_settings(services):
    image = re.search(r"^ENV ((?:.*\\\n)*.*)$", (ROOT / "Dockerfile").read_text(), re.M).group(1)
    own = dict(pair.split("=", 1) for pair in image.replace("\\\n", " ").split() if pair.startswith("TOLLWAY_"))
    assert set(own) == {"TOLLWAY_DATA_DIR", "TOLLWAY_SERVER__LISTEN", "TOLLWAY_ADMIN__LISTEN", "TOLLWAY_SERVER__OPS_LISTEN"}
    with tempfile.TemporaryDirectory() as directory:
        make = lambda: subprocess.run([ROOT / "docs/deploy/make-secrets", directory], check=True, capture_output=True, text=True)
        made = make().stdout
        assert made.count(" made") == 3, made
        files = {file: Path(directory, file).read_text() for file in ["postgres_password", "database_url", "master_key"]}
        assert make().stdout.count("left as it is") == 3
        assert files == {file: Path(directory, file).read_text() for file in files}, "made anew"
        assert files["postgres_password"].strip() in files["database_url"]
        assert os.stat(directory).st_mode & 0o777 == 0o700
        for name in GATEWAYS:
            check_settings(name, {**own, **services[name].get("environment", {})}, directory)
        example = (ROOT / ".env.example").read_text()
        lines = [line.lstrip("#") for line in example.splitlines() if re.match(r"#?[A-Z_]+=", line)]
        given = dict(line.split("=", 1) for line in lines)
        check_settings(".env.example", {**own, **{k: v for k, v in given.items() if k.startswith("TOLLWAY_")}}, directory)
    # Every other name in .env.example is one that Compose reads, and the other way round.
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    named = {name for name in given if not name.startswith("TOLLWAY_")}
    assert named - read <= {"COMPOSE_PROFILES"}, named - read
    assert read <= named, f".env.example does not name {read - named}"


def mounted():
    for file in ["prometheus.yml", "alertmanager.yml", "otel-collector.yml", "tempo.yml", "grafana/datasources.yml", "grafana/dashboards.yml"]:
        yaml.safe_load((ROOT / "docs/deploy" / file).read_text())
    # The rules have a test of their own.
    config = (ROOT / "docs/deploy/prometheus.yml").read_text()
    subprocess.run([TOOLS / "promtool", "check", "config", "--syntax-only", "/dev/stdin"], input=config, text=True, check=True, capture_output=True)


def env_counts():
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write("GATEWAY_BIND=0.0.0.0\nGATEWAY_PORT=80\nCOMPOSE_PROFILES=postgres\n")
        file.flush()
        services = json.loads(compose("config", "--format", "json", env_file=file.name))["services"]
    assert "postgres" in services
    api, admin = services["gateway"]["ports"]
    assert (api["host_ip"], api["published"]) == ("0.0.0.0", "80")
    assert admin["host_ip"] == "127.0.0.1", "the admin API stays on loopback"


if __name__ == "__main__":
    subprocess.run([BIN / "hadolint", "--failure-threshold", "style", ROOT / "Dockerfile"], check=True)
    profiles()
    everything = json.loads(compose("--profile", "*", "config", "--format", "json"))["services"]
    for check in [hardened, orderly, secrets_and_settings]:
        check(everything)
    mounted()
    env_counts()
    print("all checks passed")
