# SPDX-License-Identifier: Apache-2.0
"""`./build.py vm`: Vagrant machines on Debian's own kernels, a router with netem between two hosts.

The Vagrantfile and what it provisions are in vagrant/; here are the box, libvirt, and the order of things.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Dict, List, Sequence

from buildtools import environment, minimal, vm_box, vm_doctor, vm_hall
from buildtools.console import ROOT, BuildFailure, become_root, live, replace, say, step
from buildtools.host import require
from buildtools.vm_box import VM

VAGRANT = ROOT / "vagrant"
HOSTS = ("router", "server", "client")
WITH_ACCORD = ("server", "client")
RESULTS = VM / "results"
BOOT_SECONDS = 300
SSH_CONFIG = vm_hall.STATE / "ssh-config"


def up(kernel: str, accelerator: str) -> int:
    """Box, libvirt, machines; those that are up already stay, and get the Python sources of now. The exit code."""
    become_root(_passed_on())
    with minimal.terminable():
        return _up(kernel, accelerator)


def _up(kernel: str, accelerator: str) -> int:
    require([*vm_box.NEEDED, *vm_hall.NEEDED])
    running = vm_hall.running()
    if running is not None and SSH_CONFIG.exists():
        if _noted("kernel") != kernel:
            raise BuildFailure(f"the machines run with kernel {_noted('kernel')}: ./build.py vm down, then again")
        if _noted("box") != vm_box.name():
            raise BuildFailure("what is compiled in the machines is of other sources: ./build.py vm down, then again")
        step("vm-sync", _vagrant(running, vm_box.box(kernel), "rsync", *WITH_ACCORD))
        return 0
    box = vm_box.box(kernel)
    pid = vm_hall.start(box.emulator)
    try:
        (vm_hall.STATE / "kernel").write_text(kernel, encoding="ascii")
        (vm_hall.STATE / "box").write_text(box.name, encoding="ascii")
        (vm_hall.STATE / "accelerator").write_text(_accelerator(accelerator), encoding="ascii")
        boxes = VM / "vagrant/boxes"
        if not (boxes / box.name).exists():
            # One box at a time: an older one is of sources that are no more.
            shutil.rmtree(boxes, ignore_errors=True)
            say("handing the box to Vagrant")
            step("vm-box-add", _vagrant(pid, box, "box", "add", "--name", box.name, str(box.file)))
        say(f"vagrant up: {', '.join(HOSTS)}, kernel {kernel}, {_noted('accelerator')} (to build/log/vm-up.log)")
        step("vm-up", _vagrant(pid, box, "up", "--provider", "libvirt", *HOSTS))
        step("vm-ssh-config", _vagrant(pid, box, "ssh-config", *HOSTS))
        _ssh_config()
    except BaseException:
        # Half a set of machines serves nobody.
        _keep_consoles(RESULTS)
        vm_hall.end()
        raise
    say("up; ./build.py vm ssh client, ./build.py vm down")
    return 0


def ssh(host: str, command: Sequence[str]) -> int:
    """Become a shell, or ``command``, on a machine."""
    become_root(_passed_on())
    pid = vm_hall.running()
    if pid is None or not SSH_CONFIG.exists():
        raise BuildFailure("there are no machines: ./build.py vm up")
    replace([*_ssh(pid), *(["-t"] if sys.stdin.isatty() else []), host, *command])


def test(kernels: Sequence[str], accelerator: str, keep: bool, rest: Sequence[str]) -> int:
    """The suite of vagrant/suite.py between the machines, on one kernel after the other. The exit code.

    Takes down what it brought up; machines that were up already stay, and are those of the one kernel asked for.
    """
    # First as who we are: what is compiled belongs to the owner of the tree. As root it is then found done.
    with redirect_stdout(sys.stderr) if "--json" in rest else nullcontext():
        environment.build()
        become_root(_passed_on())
        # Half an hour of machines for a word that the suite does not know would be a pity.
        wrong = live([*_suite(kernels[0], RESULTS), "--check", *rest], _SUITE_NEEDS)
        if wrong:
            return wrong
        rows: List[Dict[str, Any]] = []
        with minimal.terminable():
            for kernel in kernels:
                rows += _test_on(kernel, accelerator, keep, rest)
    failed = sum(row["result"] == "fail" for row in rows)
    if "--json" in rest:
        print(json.dumps({"kernels": list(kernels), "rows": rows, "failed": failed}))
    return 1 if failed else 0


_SUITE_NEEDS = {"PYTHONPATH": f"{ROOT / 'ctrl'}:{ROOT}"}


def _suite(kernel: str, results: Path) -> List[str]:
    return [str(environment.PYTHON), str(VAGRANT / "suite.py"), "--kernel", kernel, "--results", str(results)]


def _test_on(kernel: str, accelerator: str, keep: bool, rest: Sequence[str]) -> List[Dict[str, Any]]:
    """The rows of one kernel, each with its name."""
    results = RESULTS / kernel
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    brought = vm_hall.running() is None
    try:
        try:
            up(kernel, accelerator)
        except vm_box.NoKernel as without:
            say(str(without))
            return [{"kernel": kernel, "case": "up", "result": "absent", "reason": str(without)}]
        pid = vm_hall.running()
        if pid is None:
            raise BuildFailure("the machines are gone: ./build.py vm up")
        environment_ = {**_SUITE_NEEDS, "ACCORD_VM_SSH": "\n".join(_ssh(pid))}
        code = live([*_suite(kernel, results), *rest], environment_)
        try:
            found = json.loads((results / "result.json").read_text(encoding="utf-8"))
        except OSError:
            raise BuildFailure(f"the suite ended with exit code {code} and left no result; see above") from None
        rows: List[Dict[str, Any]] = [{"kernel": found["kernel"] or kernel, **row} for row in found["rows"]]
        return rows
    finally:
        _keep_consoles(results)
        if brought and not keep:
            down()


def doctor(kernels: Sequence[str], accelerator: str) -> int:
    """Ask `accord doctor` on each kernel, and write docs/COMPATIBILITY.md from that. The exit code.

    A kernel whose machines were up for `vm test` since the last `vm down` of results has its answer already.
    """
    become_root(_passed_on())
    with minimal.terminable():
        for kernel in kernels:
            answer = RESULTS / kernel / "doctor-client.json"
            if not answer.exists():
                _ask_doctor(kernel, accelerator, answer)
            vm_doctor.keep(kernel, answer.read_text(encoding="utf-8"))
    vm_doctor.write()
    say(f"wrote {vm_doctor.DOCUMENT.relative_to(ROOT)}")
    return 0


def _ask_doctor(kernel: str, accelerator: str, answer: Path) -> None:
    brought = vm_hall.running() is None
    try:
        up(kernel, accelerator)
        pid = vm_hall.running()
        assert pid is not None, "it is up"
        asked = subprocess.run(
            [*_ssh(pid), "client", "sudo accord doctor --iface eth1 --json"], stdout=subprocess.PIPE, check=False
        )
        if asked.returncode:
            raise BuildFailure(f"accord doctor on kernel {kernel}: exit code {asked.returncode}")
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_bytes(asked.stdout)
    finally:
        if brought:
            down()


def down() -> int:
    """End machines, networks and libvirt. The box stays (./build.py clean removes it)."""
    become_root(_passed_on())
    shutil.rmtree(VM / "machines", ignore_errors=True)
    # Standard error: standard output may be a program's, for --json.
    print(f"[accord] {'down' if vm_hall.end() else 'there was nothing up'}", file=sys.stderr)
    return 0


def _passed_on() -> Dict[str, str]:
    """What sudo would drop."""
    slow = {name: value for name, value in os.environ.items() if name == "ACCORD_VM_SLOW"}
    return {**minimal.passed_on(), **slow}


def _accelerator(wanted: str) -> str:
    """KVM on a machine of one's own; in a virtual machine it may be there and not work."""
    if wanted != "auto":
        return wanted
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    return "kvm" if Path("/dev/kvm").exists() and " hypervisor" not in flags else "tcg"


def _noted(name: str) -> str:
    try:
        return (vm_hall.STATE / name).read_text(encoding="ascii")
    except OSError:
        return ""


def _vagrant(pid: int, box: vm_box.Box, *arguments: str) -> List[str]:
    """Vagrant in the hall, its state under build/vm."""
    consoles = Path("/var/log/libvirt")
    variables: Dict[str, str] = {
        "VAGRANT_HOME": str(VM / "vagrant"),
        "VAGRANT_DOTFILE_PATH": str(VM / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "LIBVIRT_DEFAULT_URI": "qemu:///system",
        "ACCORD_VM_BOX": box.name,
        "ACCORD_VM_KERNEL": str(box.kernel),
        "ACCORD_VM_INITRD": str(box.initrd),
        "ACCORD_VM_ACCEL": _noted("accelerator"),
        "ACCORD_VM_CONSOLES": str(consoles),
        # Translated processors that others use too: minutes.
        "ACCORD_VM_PATIENCE": str(int(BOOT_SECONDS * float(os.environ.get("ACCORD_VM_SLOW", "1")))),
    }
    settings = [f"{name}={value}" for name, value in variables.items()]
    return [*vm_hall.within(pid, VAGRANT), "env", *settings, "vagrant", *arguments]


def _ssh_config() -> None:
    """Vagrant's own answer, without the asking each time."""
    log = (ROOT / "build/log/vm-ssh-config.log").read_text(encoding="utf-8", errors="replace")
    SSH_CONFIG.write_text(log[log.index("Host ") :], encoding="utf-8")


def _ssh(pid: int) -> List[str]:
    """ssh in the hall; one connection to each machine is kept and shared."""
    shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-o", "ControlPath=/run/ssh-%n"]
    # A machine that was started anew does not answer for its old connections.
    shared += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8", "-o", "ConnectTimeout=20"]
    return [*vm_hall.within(pid, ROOT), "ssh", "-q", "-F", str(SSH_CONFIG), *shared]


def _keep_consoles(place: Path) -> None:
    """What the machines wrote to their consoles outlives them."""
    for host in HOSTS:
        log = vm_hall.STATE / f"var/log/{host}.log"
        if log.exists():
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, place / f"console-{host}.log")
