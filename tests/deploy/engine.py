"""A Docker engine of the tests' own, and a base image made on this machine: nothing is pulled.

The engine is Debian's, unpacked by tests/clients/install, and runs as root beside any other that the
machine has. Its images stay in `engine-data` below the tools, so that a second run builds only what
changed."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("TW_TEST_TOOLS", ROOT / "tests/clients/.tools")).resolve()
ENGINE = TOOLS / "engine"
# What a script ends with where it could not do its work.
SKIPPED = 77


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(SKIPPED)


def architecture():
    return {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}[os.uname().machine]


class Engine:
    """Runs `dockerd`; ends it, and all that ran in it, with the block."""

    def __init__(self):
        libraries = [ENGINE / "usr/lib" / architecture(), ENGINE / "lib" / architecture()]
        path = f"{ENGINE}/usr/bin:{ENGINE}/usr/sbin:{os.environ['PATH']}"
        self.run_dir = Path(tempfile.mkdtemp(prefix="tollway-engine-"))
        self.server_env = {
            **os.environ,
            "PATH": path,
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            # With these the engine answers names inside a network.
            "XTABLES_LIBDIR": str(libraries[0] / "xtables"),
        }
        self.env = {
            "PATH": path,
            "HOME": str(self.run_dir),
            "DOCKER_HOST": f"unix://{self.run_dir}/docker.sock",
            "DOCKER_CONFIG": str(self.run_dir / "config"),
            "DOCKER_BUILDKIT": "1",
        }
        self.process = None

    def __enter__(self):
        if os.getuid() != 0:
            skip("a Docker engine wants root")
        if not (ENGINE / "usr/sbin/dockerd").exists():
            skip("there is no Docker engine: tests/clients/install docker_engine did not work")
        data = TOOLS / "engine-data"
        data.mkdir(parents=True, exist_ok=True)
        self.lock = open(TOOLS / "engine.lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.log = open(self.run_dir / "log", "w+")
        # It leaves the machine's network as it is.
        options = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        places = ["--data-root", data, "--exec-root", self.run_dir / "exec", "-p", self.run_dir / "pid"]
        self.process = subprocess.Popen(
            [ENGINE / "usr/sbin/dockerd", *options, *places, "-H", self.env["DOCKER_HOST"]],
            env=self.server_env, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )
        for _ in range(120):
            if self.process.poll() is not None:
                break
            if subprocess.run(["docker", "version"], env=self.env, capture_output=True).returncode == 0:
                return self
            time.sleep(0.5)
        tail = "\n".join(Path(self.log.name).read_text().splitlines()[-5:])
        self.stop()
        skip(f"the Docker engine does not start here:\n{tail}")

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            containers = self.docker("ps", "-aq", check=False).split()
            if containers:
                self.docker("rm", "-f", "-v", *containers, check=False)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def docker(self, *arguments, check=True, live=False, **more):
        """What `docker` says on its standard output."""
        command = ["docker", *map(str, arguments)]
        if live:
            subprocess.run(command, env=self.env, check=True, **more)
            return ""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, **more)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def has(self, image):
        return bool(self.docker("images", "-q", image))


def base_image(engine):
    """What the Dockerfile builds on, under the name it has there: Debian with a C compiler, CA roots,
    and this machine's Rust."""
    name = re.search(r"^ARG RUST_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M).group(1)
    if engine.has(name):
        return
    suite = name.rsplit("-", 1)[1]
    sysroot = Path(subprocess.run(["rustc", "--print", "sysroot"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip())
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tollway-base-") as place:
        root = Path(place, "root")
        debootstrap = [ENGINE / "usr/sbin/debootstrap", "--variant=minbase", "--include=ca-certificates,gcc,libc6-dev", suite, root]
        done = subprocess.run(debootstrap, env={**os.environ, "DEBOOTSTRAP_DIR": str(ENGINE / "usr/share/debootstrap")}, capture_output=True, text=True)
        if done.returncode != 0:
            skip(f"no Debian can be bootstrapped here:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        # The machine's roots: it may sit behind a proxy with one of its own.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        toolchain = Path("usr/local/rustup/toolchains/here")
        (root / toolchain / "bin").mkdir(parents=True)
        (root / "usr/local/cargo/bin").mkdir(parents=True)
        for program in ["cargo", "rustc"]:
            shutil.copy2(sysroot / "bin" / program, root / toolchain / "bin" / program)
            (root / "usr/local/cargo/bin" / program).symlink_to(Path("/", toolchain, "bin", program))
        shutil.copytree(sysroot / "lib", root / toolchain / "lib", symlinks=True, ignore=shutil.ignore_patterns("src", "*-musl"))
        changes = ["-c", "ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup"]
        skipped = ["--exclude=./var/cache/apt/archives/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./usr/share/doc"]
        tar = subprocess.Popen(["tar", "-C", root, "-c", *skipped, "."], stdout=subprocess.PIPE)
        engine.docker("import", *changes, "-", f"docker.io/library/{name}", stdin=tar.stdout)
        assert tar.wait() == 0
    print(f"{name}: bootstrapped in {time.monotonic() - started:.0f} s", flush=True)
