"""Ranks as on machines of their own: a network namespace each, on one bridge, behind `tc tbf`. Needs root.

A delay does not need netem, which not every kernel has: the ranks then hang on taps, and a thread here carries each
frame when its time has come.
"""

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

NAME, HOST, MOST = "p2pscale", "10.77.0.", 4


class Cluster(NamedTuple):
    """So many ranks on links of `gigabits` Gbit/s each way (0: unshaped), `delay` seconds one way."""

    world: int
    gigabits: float
    delay: float = 0.0

    def __str__(self) -> str:
        rate = f"{self.gigabits:g} Gbit/s" if self.gigabits else "unshaped"
        return f"{self.world} rank{'s' * (self.world > 1)}, {rate}" + f" and {self.delay * 1e3:g} ms" * bool(self.delay)


def ip(command: str, check: bool = True) -> None:
    """Run `ip ...`."""
    subprocess.run(["ip", *command.split()], check=check, capture_output=True)


def remove() -> None:
    """Take away what a run, this one or a killed one, has set up."""
    for r in range(MOST):
        ip(f"netns del {NAME}{r}", check=False)
        ip(f"link del {NAME}{r}v", check=False)  # the kernel takes its time for a namespace
    ip(f"link del {NAME}", check=False)


@contextmanager
def built(cluster: Cluster) -> Iterator[None]:
    """The namespaces `p2pscale0 ...`, removed whatever happens."""
    remove()
    stop, taps = threading.Event(), []
    carrier = threading.Thread(target=carry, args=(taps, cluster.delay, stop))
    try:
        ip(f"link add {NAME} up type bridge")
        for r in range(cluster.world):
            ip(f"netns add {NAME}{r}")
            if cluster.delay:
                taps.append(tap(f"{NAME}{r}t"))
            join(r, cluster)
        carrier.start()
        yield
    finally:
        stop.set()
        if carrier.ident:
            carrier.join()
        for fd in taps:
            os.close(fd)
        remove()


def join(r: int, cluster: Cluster) -> None:
    """Give a namespace its device, address and rate."""
    space = f"{NAME}{r}"
    if cluster.delay:
        ip(f"link set {space}t netns {space} name eth0 mtu 65000")
    else:
        ip(f"link add {space}v up master {NAME} type veth peer name eth0 netns {space}")
    ip(f"-n {space} addr add {HOST}{r + 1}/24 dev eth0")
    for device in ("lo", "eth0"):
        ip(f"-n {space} link set {device} up")
    if cluster.gigabits:
        rate = f"rate {cluster.gigabits * 1000:.0f}mbit burst 128kb limit 16mb"
        ip(f"netns exec {space} tc qdisc add dev eth0 root tbf {rate}")


def tap(name: str) -> int:
    """A network device whose frames this process reads and writes."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH", name.encode(), 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
    return fd


def carry(taps: Sequence[int], delay: float, stop: threading.Event) -> None:
    """Carry each frame `delay` seconds late to the tap its IPv4 or ARP target lives on."""
    late: deque[tuple[float, int, bytes]] = deque()
    while taps and not stop.is_set():
        wait = max(late[0][0] - time.monotonic(), 0) if late else 0.1
        for fd in select.select(taps, [], [], wait)[0]:
            frame = os.read(fd, 70_000)
            target = {b"\x08\x00": 33, b"\x08\x06": 41}.get(frame[12:14])
            if target and 1 <= frame[target] <= len(taps):
                late.append((time.monotonic() + delay, taps[frame[target] - 1], frame))
        while late and late[0][0] <= time.monotonic():
            _, fd, frame = late.popleft()
            os.write(fd, frame)


def run(cluster: Cluster, module: str, *args: str) -> Any:
    """Run a module on every rank, rank r on core r modulo the cores; the JSON that rank 0 prints."""
    cores = sorted(os.sched_getaffinity(0))
    env = os.environ | {"WORLD_SIZE": str(cluster.world), "MASTER_ADDR": f"{HOST}1", "MASTER_PORT": "29500"}
    env["GLOO_SOCKET_IFNAME"] = "eth0"
    ranks: list[subprocess.Popen[bytes]] = []
    with built(cluster):
        try:
            for r in range(cluster.world):
                pinned = f"ip netns exec {NAME}{r} taskset -c {cores[r % len(cores)]}".split()
                command = [*pinned, sys.executable, "-m", module, *args]
                out = None if r else subprocess.PIPE
                ranks.append(
                    subprocess.Popen(command, env=env | {"RANK": str(r)}, stdout=out, stderr=subprocess.DEVNULL)
                )
            return json.loads(ranks[0].communicate(timeout=300)[0])
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
