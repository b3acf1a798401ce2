"""The image, built by a real engine from the Dockerfile as it stands, and run as a careful operator
runs it: alone, as docker-compose.yml has it, and to its end with streams in flight.

Wants root; ends with 77 where no engine can be started."""

import http.client
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

from engine import ROOT, Engine, base_image

IMAGES = {"gateway": "tollway:under-test", "sim": "tollway-sim:under-test"}
HARDENED = [
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
    "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "64",
]
STREAMS = 20
# Docker's grace in the test; the gateway's own is 25 seconds.
GRACE = 40


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def build(engine):
    for target, tag in IMAGES.items():
        started = time.monotonic()
        engine.docker("build", "--network", "host", "--progress", "plain", "--target", target, "-t", tag, ROOT, live=True)
        print(f"{target}: built in {time.monotonic() - started:.0f} s", flush=True)
    # The gateway is what `docker build .` gives.
    engine.docker("build", "-q", "--network", "host", "-t", "tollway:default", ROOT)
    ids = {engine.docker("image", "inspect", "-f", "{{.Id}}", tag) for tag in ["tollway:default", IMAGES["gateway"]]}
    assert len(ids) == 1, "the last stage is not the gateway"


def holds_only_what_it_needs(engine):
    described = json.loads(engine.docker("image", "inspect", IMAGES["gateway"]))[0]
    size = described["Size"]
    print(f"size: {size / 1e6:.1f} MB")
    assert size < 40e6, f"the image has {size / 1e6:.1f} MB"
    config = described["Config"]
    assert config["User"] == "65532:65532" and config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["/usr/local/bin/tollway"] and config["Cmd"] == ["serve"]
    assert set(config["ExposedPorts"]) == {"8787/tcp", "8788/tcp", "9464/tcp"} and set(config["Volumes"]) == {"/data"}
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/tollway", "healthcheck"]
    for label in ["title", "description", "version", "revision", "created", "source", "licenses"]:
        assert config["Labels"].get(f"org.opencontainers.image.{label}"), label
    container = engine.docker("create", IMAGES["gateway"])
    exported = subprocess.run(["docker", "export", container], env=engine.env, capture_output=True, check=True).stdout
    engine.docker("rm", container)
    # Docker itself lays these into every container.
    its_own = ("dev/", "proc/", "sys/", ".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab")
    with tarfile.open(fileobj=io.BytesIO(exported)) as files:
        members = [m for m in files.getmembers() if not m.name.startswith(its_own) and m.name != "dev"]
    names = sorted(m.name for m in members if m.isfile())
    programs = [n for n in names if not n.startswith(("etc/", "lib"))]
    assert programs == ["usr/local/bin/tollway"], programs
    program = next(m.size for m in members if m.name == programs[0])
    print(f"program: {program / 1e6:.1f} MB")
    assert program < 30e6, f"the program has {program / 1e6:.1f} MB"
    libraries = {Path(n).name.split(".")[0].split("-")[0] for n in names if n.startswith("lib")}
    assert libraries == {"libc", "libm", "libgcc_s", "ld"}, names
    assert [n for n in names if n.startswith("etc/")] == ["etc/group", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"]
    data = next(m for m in members if m.name == "data")
    assert (data.uid, data.gid, data.mode & 0o777) == (65532, 65532, 0o700), data
    assert not [m.name for m in members if m.isfile() and m.mode & 0o6000], "set-user-id"


def events(answer):
    return [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]


class Stream(threading.Thread):
    """One streamed answer; `begun` once something came."""

    def __init__(self, port, key, text):
        super().__init__(daemon=True)
        self.port, self.key, self.text = port, key, text
        self.begun = threading.Event()
        self.read, self.status = "", None

    def run(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            body = json.dumps({"model": "gpt-6.1-sol", "stream": True, "input": self.text})
            connection.request("POST", "/v1/responses", body, headers)
            answer = connection.getresponse()
            self.status = answer.status
            while piece := answer.read1():
                self.read += piece.decode()
                if "output_text.delta" in self.read:
                    self.begun.set()
        except OSError as error:
            self.read += f"\n{error}"
        self.begun.set()

    def whole(self):
        said = events(self.read)
        return self.status == 200 and said and said[-1]["type"] == "response.completed"


def eventually(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} s: {what}")


def runs_hardened(engine):
    """64 MB, half a core, no capability; streams; and ends in order as process 1."""
    engine.docker("network", "create", "alone")
    engine.docker("run", "-d", "--name", "sim", "--network", "alone", "--read-only", IMAGES["sim"],
                  "--listen", "0.0.0.0:8790", "--delta-delay", "60", "--approve-devices-after", "1")
    eventually("a healthy simulator", lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "sim") == "healthy")
    settings = ["-e", "TOLLWAY_BACKEND__BASE_URL=http://sim:8790/backend-api", "-e", "TOLLWAY_OAUTH__ISSUER=http://sim:8790"]
    own = [*HARDENED, "--network", "alone", "-v", "alone:/data", *settings]
    engine.docker("run", "--rm", *own, IMAGES["gateway"], "account", "login", "--device")
    key = engine.docker("run", "--rm", *own, IMAGES["gateway"], "key", "create", "--name", "test").splitlines()[-1]
    port = free_port()
    engine.docker("run", "-d", "--name", "gateway", *own, "-p", f"127.0.0.1:{port}:8787", IMAGES["gateway"])
    eventually("a healthy gateway", lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "gateway") == "healthy", 90)
    process = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "gateway"))
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65532"] * 4 and status["Gid"].split() == ["65532"] * 4, status["Uid"]
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1", "it is process 1"
    idle = int(status["VmRSS"].split()[0]) * 1024
    print(f"idle: {idle / 1e6:.1f} MB")
    # With an order of functions (benches/layout) that is much older than the program it would be 27: write it anew.
    assert idle < 24e6 or platform.machine() != "x86_64", f"an idle gateway has {idle / 1e6:.1f} MB"
    mounts = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
    assert next(m for m in mounts if m[4] == "/")[5].split(",")[0] == "ro", "the root can be written"
    shell = subprocess.run(["docker", "exec", "gateway", "/bin/sh", "-c", "true"], env=engine.env, capture_output=True, text=True)
    assert shell.returncode != 0 and "no such file" in shell.stdout + shell.stderr, "there is a shell"

    # About six seconds each.
    streams = [Stream(port, key, f"[long 100] {number}") for number in range(STREAMS)]
    for stream in streams:
        stream.start()
    for stream in streams:
        assert stream.begun.wait(60), "no stream began"
    assert not any(stream.whole() for stream in streams), "the streams ended before the test began"
    started = time.monotonic()
    engine.docker("stop", "-t", GRACE, "gateway")
    took = time.monotonic() - started
    for stream in streams:
        stream.join(30)
        assert stream.whole(), f"a stream was cut: {stream.status} {stream.read[-300:]}"
    state = json.loads(engine.docker("inspect", "-f", "{{json .State}}", "gateway"))
    log = engine.docker("logs", "gateway")
    assert state["ExitCode"] == 0 and not state["OOMKilled"], f"{state}\n{log}"
    assert took < GRACE - 5, f"SIGTERM to the end took {took:.1f} s"
    print(f"{STREAMS} streams finished, SIGTERM to the end took {took:.1f} s")


def composes(engine):
    """`docker compose up --wait`, with nothing and with the demonstration."""
    ports = {name: free_port() for name in ["GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "DEMO_PORT"]}
    env = {**engine.env, "GATEWAY_IMAGE": IMAGES["gateway"], "SIM_IMAGE": IMAGES["sim"], **{k: str(v) for k, v in ports.items()}}
    with tempfile.TemporaryDirectory() as nobody:
        # In a folder of its own: nobody's .env counts.
        base = [Path(sys.executable).parent / "docker-compose", "-p", "tollway-under-test", "--project-directory", nobody, "-f", ROOT / "docker-compose.yml"]

        def compose(*arguments):
            done = subprocess.run([*base, *arguments], env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{logs()}"
            return done.stdout

        def logs():
            return subprocess.run([*base, "--profile", "*", "logs"], env=env, capture_output=True, text=True).stdout

        def healthy(*profile):
            shown = [json.loads(line) for line in compose(*profile, "ps", "--format", "json").splitlines()]
            return sorted(each["Service"] for each in shown if each["Health"] == "healthy")

        started = time.monotonic()
        compose("up", "--detach", "--wait", "--no-build")
        assert healthy() == ["gateway"]
        print(f"compose, as it is: healthy after {time.monotonic() - started:.0f} s")
        sim = ["--profile", "sim"]
        for _ in range(2):  # again over what the first time left
            compose(*sim, "up", "--detach", "--wait", "--no-build")
            assert healthy(*sim) == ["demo", "gateway", "sim"]
            said = compose(*sim, "logs", "--no-log-prefix", "demo-key").splitlines()
            key = [line for line in said if line.startswith("tw-")][-1]
            stream = Stream(ports["DEMO_PORT"], key, "Say hello to the team.")
            stream.run()
            assert stream.whole() and "Say hello to the team." in stream.read, f"{stream.status} {stream.read}\n{logs()}"
            compose(*sim, "stop")
        states = compose(*sim, "ps", "-a", "--format", "json").splitlines()
        assert [json.loads(s)["ExitCode"] for s in states] == [0] * 5, states
        compose("--profile", "*", "down", "--volumes")
    print("compose, profile sim: served a streamed answer, twice")


def readme_holds(engine):
    """What README.md says under "Deploy", word by word, but for the port and with images that are
    there; `docker compose` is Compose as Docker's plugin."""
    section = (ROOT / "README.md").read_text().split("\n## Deploy\n", 1)[1].split("\n## ", 1)[0]
    blocks = [block.split("```", 1)[0].strip() for block in section.split("```\n")[1::2]]
    demonstration, accounts = blocks[0], blocks[1]
    commands = [line for line in demonstration.replace("\\\n", "").splitlines() if line]
    assert len(commands) <= 4, "with `git clone` more than five commands"
    plugins = Path(engine.env["DOCKER_CONFIG"], "cli-plugins")
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "docker-compose").symlink_to(Path(sys.executable).parent / "docker-compose")
    ports = {name: free_port() for name in ["GATEWAY_PORT", "GATEWAY_ADMIN_PORT", "DEMO_PORT"]}
    env = {**engine.env, "GATEWAY_IMAGE": IMAGES["gateway"], "SIM_IMAGE": IMAGES["sim"], **{k: str(v) for k, v in ports.items()}}
    assert "127.0.0.1:8987" in demonstration
    with tempfile.TemporaryDirectory() as checkout:
        shutil.copy(ROOT / "docker-compose.yml", checkout)

        def typed(script):
            command = ["bash", "-euo", "pipefail", "-c", script]
            done = subprocess.run(command, env=env, cwd=checkout, capture_output=True, text=True)
            assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
            return done.stdout

        said = events(typed(demonstration.replace("127.0.0.1:8987", f"127.0.0.1:{ports['DEMO_PORT']}")))
        assert said[-1]["type"] == "response.completed", said
        # A login that nobody approves does not end; that it begins is said by its help.
        said = typed(accounts.replace("account login --device", "account login --help").replace("exec ", "exec -T "))
        assert said.splitlines()[-1].startswith("tw-"), said
        typed("docker compose --profile '*' down --volumes")
    print("README.md, Deploy: as it says")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Engine() as engine:
        base_image(engine)
        build(engine)
        engine.docker("volume", "rm", "-f", "alone", check=False)
        engine.docker("network", "rm", "alone", check=False)
        holds_only_what_it_needs(engine)
        runs_hardened(engine)
        composes(engine)
        readme_holds(engine)
    print("all checks passed")


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
