# SPDX-License-Identifier: Apache-2.0
"""libvirt with nothing of the host touched: its daemons, bridges and files in namespaces of their own.

One shell is PID 1 of a PID, a mount and a network namespace. In them /run, /etc/libvirt and the other places of
libvirt are directories of build/vm, and the daemons run there whether the host has systemd, a libvirt of its own, or
neither. When the shell ends the kernel ends every machine, bridge and mount with it, so there is nothing to put back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import List, Optional

from buildtools.console import BuildFailure, relative
from buildtools.vm_box import VM

NEEDED = (
    "dbus", "dnsmasq-base", "iproute2", "iptables", "libvirt-clients", "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system", "openssh-client", "qemu-system-x86", "qemu-utils", "rsync", "vagrant", "vagrant-libvirt",
)  # fmt: skip
STATE = VM / "state"
LOG = VM / "hall.log"
START_SECONDS = 60

# QEMU without what only the host's root and its services could give: no cgroups, no other user, no labels.
_QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
"""

# $1: the directory of our state; $2: where another QEMU was unpacked, or nothing. /sys anew, since the host's shows the
# host's interfaces. The other QEMU takes the place of the host's, program, modules and data: beside it, each would end
# at the sight of the other's modules.
_HALL = """
state=$1 qemu=$2
for part in bin/qemu-system-x86_64 bin/qemu-system-i386 lib/x86_64-linux-gnu/qemu share/qemu share/seabios; do
    if [ -n "$qemu" ] && [ -e "/usr/$part" ]; then mount --bind "$qemu/usr/$part" "/usr/$part"; fi
done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs run /run
for name in etc var/lib var/log var/cache; do
    mkdir -p "/$name/libvirt"
    mount --bind "$state/$name" "/$name/libvirt"
done
mkdir -p /run/dbus /run/lock
ip link set lo up
dbus-daemon --system --fork
virtlogd -d
libvirtd -d
until virsh -q -c qemu:///system version; do sleep 0.2; done
virsh -q -c qemu:///system pool-create-as default dir --target /var/lib/libvirt/images
echo ready > "$state/ready"
sleep infinity
"""


def running() -> Optional[int]:
    """Process ID of the shell, the hall's PID 1, as the host sees it; None when there is no hall."""
    try:
        pid, since = (STATE / "pid").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(pid) if started(int(pid)) == since else None


def start(emulator: Optional[Path] = None) -> int:
    """The hall, made if it is not there. ``emulator``: where another QEMU was unpacked.

    Raises BuildFailure with what its daemons said.
    """
    found = running()
    if found is not None and (STATE / "ready").exists():
        return found
    end()
    for name in ("etc", "var/lib/images", "var/log", "var/cache"):
        (STATE / name).mkdir(parents=True)
    (STATE / "etc/qemu.conf").write_text(_QEMU_CONF)
    (STATE / "etc/libvirtd.conf").write_text('auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n')
    command = ["unshare", "--mount", "--propagation", "private", "--pid", "--net", "--fork"]
    with LOG.open("wb") as log:
        # A session of its own: a Ctrl-C is for the command that we serve, which then ends the hall in its own time.
        outer = subprocess.Popen(
            [*command, "sh", "-ec", _HALL, "sh", str(STATE), str(emulator or "")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not (STATE / "ready").exists():
        inner = _child(outer.pid)
        if inner is not None and not (STATE / "pid").exists():
            (STATE / "pid").write_text(f"{inner} {started(inner)}", encoding="ascii")
        if outer.poll() is not None or time.monotonic() > deadline:
            end()
            raise BuildFailure(f"libvirt did not start; {relative(LOG)} says:\n{LOG.read_text(errors='replace')}")
        time.sleep(0.1)
    found = running()
    if found is None:
        raise BuildFailure(f"libvirt ended as soon as it had started: see {relative(LOG)}")
    return found


def end() -> bool:
    """End the hall and every machine in it, and forget its state. Returns whether there was one."""
    pid = running()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while running() is not None:
            time.sleep(0.05)
    shutil.rmtree(STATE, ignore_errors=True)
    return pid is not None


def within(pid: int, directory: Path) -> List[str]:
    """What to put before a command so that it runs in the hall, in ``directory``."""
    enter = ["nsenter", "--target", str(pid), "--mount", "--net", "--pid"]
    return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(directory)]


def started(pid: int) -> Optional[str]:
    """When a process started, in ticks (proc(5), stat, field 22): with it an ID says which process was meant."""
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return None
    return None if state == "Z" else fields[18]


def _child(pid: int) -> Optional[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(children[0]) if children else None
