"""The Codex CLI, unmodified, in each of the ways in which docs/codex-cli.md points it at Tollway: a
provider of its own, one that is named "OpenAI", and the built-in provider over TLS."""

import base64
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse

from check import KEY, URL, check, sim

CODEX = sys.argv[1]
MODEL = "gpt-6.1-sol"


def custom(name):
    """A provider of the user's own."""
    return f"""
model = "{MODEL}"
model_provider = "tollway"

[model_providers.tollway]
name = "{name}"
base_url = "{URL}/v1"
env_key = "TW_KEY"
wire_api = "responses"
"""


def unsigned(claims):
    """A token that nobody signed: the CLI reads its own name and plan there, and no more."""
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.{part({})}"


def auth_json():
    """A login whose access token is the gateway's key."""
    account = {"chatgpt_account_id": "tollway", "chatgpt_user_id": "tollway", "chatgpt_plan_type": "pro"}
    identity = unsigned({"email": "you@example.com", "https://api.openai.com/auth": account})
    tokens = {"id_token": identity, "access_token": KEY, "refresh_token": "none", "account_id": "tollway"}
    # A key has no end that the CLI could read: a date far ahead keeps it from asking for another one.
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2099-01-01T00:00:00Z"}


def certificates(directory):
    """A local authority and a certificate of it for localhost."""
    run = lambda *words: subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=Tollway test authority", *authority)
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost")
    run("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem",
        "-days", "2", "-extfile", "names")
    return directory / "ca.pem", directory / "cert.pem", directory / "key.pem"


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def terminate(cert, key):
    """Takes TLS off and passes the bytes on to the gateway, as a proxy in front of it would."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))
    gateway = urllib.parse.urlsplit(URL)

    def serve(plain):
        try:
            client = context.wrap_socket(plain, server_side=True)
            inner = socket.create_connection((gateway.hostname, gateway.port))
        except OSError:
            return
        threading.Thread(target=pump, args=(client, inner), daemon=True).start()
        pump(inner, client)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def turn(name, config, login=None, **more):
    """One prompt; gives the events."""
    home, work = pathlib.Path(tempfile.mkdtemp()), pathlib.Path(tempfile.mkdtemp())
    (home / "config.toml").write_text(config)
    if login:
        (home / "auth.json").write_text(json.dumps(login))
    command = [CODEX, "exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "hello"]
    environment = os.environ | {"CODEX_HOME": str(home), "TW_KEY": KEY} | more
    done = subprocess.run(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    check(f"{name}: exit code", done.returncode == 0, done.stdout + done.stderr)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    said = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
    check(f"{name}: the model answered", any("You said: hello" in text for text in said), events)
    return events


def asked():
    """What the backend was asked since the last time."""
    requests = sim("GET", "requests?limit=500")["requests"]
    seen = requests[asked.before:]
    asked.before = len(requests)
    return seen


asked.before = 0

for name in ("Tollway", "OpenAI"):
    turn(f'provider named "{name}"', custom(name))
    seen = asked()
    check(f"{name}: the key stayed here", KEY not in json.dumps(seen))

# What the gateway asks of the backend stands in the same list: only the CLI's own turns count.
with tempfile.TemporaryDirectory() as directory:
    authority, cert, key = certificates(pathlib.Path(directory))
    port = terminate(cert, key)
    config = f"""
model = "{MODEL}"
chatgpt_base_url = "https://localhost:{port}/backend-api/"
openai_base_url = "https://localhost:{port}/backend-api/codex"
"""
    trust = {"CODEX_CA_CERTIFICATE": str(authority), "SSL_CERT_FILE": str(authority)}
    turn("built-in provider", config, auth_json(), **trust)
    seen = asked()
    check("built-in provider: the key stayed here", KEY not in json.dumps(seen))
    turns = [request for request in seen if request["path"].endswith("/codex/responses")]
    check("built-in provider: the backend was asked", turns, [request["path"] for request in seen])
    names = {request["headers"].get("chatgpt-account-id") for request in turns}
    check("built-in provider: under the pool's account", names and "tollway" not in names, names)
    paths = {urllib.parse.urlsplit(request["path"]).path for request in seen}
    kept = [path for path in paths if any(part in path for part in ("analytics", "/ps/", "settings"))]
    check("built-in provider: what is the client's own stayed here", not kept, kept)
print("all checks passed")
