"""What the benchmarks share: daemons in network namespaces, Skep's and the peer's alike, and tables of ratios."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from urllib.parse import quote

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class Connection(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Daemon:
    """A daemon in its own namespace and folders."""

    def __init__(self, name, command, switch=None, number=1):
        self.name = name
        self.number = number
        self.address = f"192.0.2.{number}"
        self.namespace = f"bench-{name}-{os.getpid()}-{number}"
        self.folder = tempfile.mkdtemp(prefix=f"bench-{name}-")
        self.socket = f"{self.folder}/daemon.sock"
        self.command = command
        self.log = open(f"{self.folder}/log", "w")
        run("ip", "netns", "add", self.namespace)
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        if switch:
            switch.plug(self)
        else:
            run("ip", "-n", self.namespace, "link", "add", "up0", "type", "veth", "peer", "up1")
        run("ip", "-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "up0")
        run("ip", "-n", self.namespace, "link", "set", "up0", "up")
        self.start()

    def start(self):
        """Starts the daemon, also again."""
        arguments = [
            "nsenter", f"--net=/run/netns/{self.namespace}", "--",
            "unshare", "--uts", "--", "sh", "-c", 'hostname "$0" && exec "$@"', f"node-{self.number}", *self.command,
            "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
            "--pidfile", f"{self.folder}/daemon.pid", "--host", f"unix://{self.socket}",
        ]
        self.process = subprocess.Popen(arguments, stdout=self.log, stderr=self.log)

    def kill(self):
        """kill -9, and forgets the pid file, which dockerd would stumble over."""
        self.process.kill()
        self.process.wait()
        for left in ("daemon.pid", "exec/docker-containerd.pid", "exec/containerd/containerd.pid"):
            try:
                os.remove(f"{self.folder}/{left}")
            except OSError:
                pass

    def wait(self):
        """Until the daemon answers."""
        until(lambda: self.api("GET", "/_ping", raw=True) is not None, 60, f"{self.name} answers")

    def story(self):
        """The end of the daemon's log."""
        with open(f"{self.folder}/log") as file:
            return "".join(file.readlines()[-20:])

    def api(self, method, path, body=None, raw=False):
        """The decoded answer of a request; None when the daemon does not answer."""
        connection = Connection(self.socket)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        except OSError:
            return None
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {answer.status} {data.decode()}")
        return data if raw or not data else json.loads(data)

    def docker(self, *arguments):
        environment = dict(os.environ, DOCKER_HOST=f"unix://{self.socket}", DOCKER_CONFIG=self.folder)
        done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.name}: docker {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def processes(self):
        """The daemon and all that keeps its containers: who lives in its network namespace. Containers have
        their own, and clients come through the socket."""
        namespace = os.stat(f"/run/netns/{self.namespace}").st_ino
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino == namespace:
                    found.append(int(pid))
            except OSError:
                continue
        return found

    def memory(self):
        """Resident and proportional memory of those processes, in MB."""
        resident = proportional = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    for line in file:
                        if line.startswith("Rss:"):
                            resident += int(line.split()[1])
                        elif line.startswith("Pss:"):
                            proportional += int(line.split()[1])
            except OSError:
                continue
        return resident / 1024, proportional / 1024

    def processor_time(self):
        """Seconds that those processes have spent on a processor."""
        spent = 0
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    spent += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
            except OSError:
                continue
        return spent / os.sysconf("SC_CLK_TCK")

    def tasks(self, service, state="running"):
        filters = json.dumps({"service": {service: True}, "desired-state": {"running": True}})
        tasks = self.api("GET", f"/tasks?filters={quote(filters)}")
        return [task for task in tasks if task["Status"]["State"] == state]

    def create_service(self, name, replicas, image, delay=5_000_000_000):
        return self.api("POST", "/services/create", {
            "Name": name,
            "TaskTemplate": {
                "ContainerSpec": {"Image": image, "Command": ["sleep", "100000"], "StopGracePeriod": 1_000_000},
                "RestartPolicy": {"Condition": "any", "Delay": delay},
            },
            "Mode": {"Replicated": {"Replicas": replicas}},
        })["ID"]

    def remove_service(self, name):
        self.api("DELETE", f"/services/{name}", raw=True)
        until(lambda: not self.api("GET", "/containers/json?all=1"), 120, "containers are gone")

    def close(self):
        try:
            self.docker("swarm", "leave", "--force")
        except RuntimeError:
            pass
        for container in (self.api("GET", "/containers/json?all=1") or []):
            self.api("DELETE", f"/containers/{container['Id']}?force=1", raw=True)
        # nsenter has become the daemon itself.
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        with open("/proc/self/mounts") as file:
            mounts = [line.split()[1] for line in file if self.folder in line]
        for mount in reversed(mounts):
            subprocess.run(["umount", "--lazy", mount], check=False)
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Switch:
    """A bridge in a namespace of its own, and cables to the daemons."""

    def __init__(self, name):
        self.namespace = f"bench-{name}-{os.getpid()}-switch"
        run("ip", "netns", "add", self.namespace)
        run("ip", "-n", self.namespace, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.namespace, "addr", "add", "192.0.2.254/24", "dev", "bridge")
        run("ip", "-n", self.namespace, "link", "set", "bridge", "up")

    def plug(self, daemon):
        port = f"port{daemon.number}"
        run("ip", "-n", daemon.namespace, "link", "add", "up0", "type", "veth", "peer", port, "netns", self.namespace)
        run("ip", "-n", self.namespace, "link", "set", port, "master", "bridge", "up")

    def close(self):
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)


def run(*command):
    subprocess.run(command, check=True)


def until(condition, limit, what):
    """Waits until `condition` holds; the seconds that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise RuntimeError(f"not within {limit} s: {what}")
        time.sleep(0.004)
    return time.monotonic() - began


def timed(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


def table(ours, theirs, goals):
    """The lines of a table of both, with ratios."""
    yield "| what | Skep | dockerd | ratio | goal |"
    yield "| --- | --- | --- | --- | --- |"
    for row, value in ours.items():
        peer = theirs.get(row)
        ratio = f"{value / peer:.2f}" if peer else ""
        goal = f"<= {goals[row]}" if row in goals else ""
        yield f"| {row} | {value:.4g} | {f'{peer:.4g}' if peer else 'not measured'} | {ratio} | {goal} |"


def write(path, lines, mark):
    """Puts the lines between the marks of a file."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    with open(path) as file:
        text = file.read()
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    with open(path, "w") as file:
        file.write(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail)
