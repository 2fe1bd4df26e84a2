# SPDX-License-Identifier: Apache-2.0
"""Debian packages: the one list, what of it is missing, how it gets installed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import Sequence

from buildtools.console import BUILD, BuildFailure, as_root, say, step
from buildtools.stamps import Stamp, digest

PACKAGES = (
    # the C core and the BPF objects
    "clang",
    "gcc",
    "libbpf-dev",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "libxdp-dev",
    "linux-libc-dev",
    "llvm",
    "make",
    "zlib1g-dev",
    # Python: bcc is Debian's, which is why the virtual environment sees the system's packages
    "ca-certificates",
    "python3-bpfcc",
    "python3-dev",
    "python3-venv",
    # checks, and the independent witnesses of the tests and the demo
    "bpftool",
    "busybox",
    "clang-format",
    "clang-tidy",
    "curl",
    "ethtool",
    "git",
    "iproute2",
    "iptables",
    "libclang-rt-dev",
    "openssl",
    "spin",
    "tcc",  # compiles a model's verifier in a twentieth of gcc's time
    "tcpdump",
    "tshark",
    "valgrind",  # 22 MB to fetch, 89 MB installed, with libc6-dbg; instructions counted are what two versions differ by
)

# dpkg-query's words for a package that is there.
INSTALLED = "install ok installed"


def missing(packages: Sequence[str]) -> list[str]:
    """Those that dpkg does not have, in one call."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Status}\n", *packages],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
        check=False,
    )
    present = set()
    for line in done.stdout.splitlines():
        name, _, status = line.partition("\t")
        if status == INSTALLED:
            present.add(name)
    return [name for name in packages if name not in present]


def headers_candidates() -> list[str]:
    """Kernel headers for `accord trace`: the running kernel's, else the distribution's."""
    flavour = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    return [f"linux-headers-{platform.release()}"] + ([f"linux-headers-{flavour}"] if flavour else [])


def available(package: str) -> bool:
    """Whether apt could install it."""
    done = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", package],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == 0 and bool(done.stdout.strip())


def apt(name: str, *arguments: str) -> None:
    """apt-get, asking nothing, waiting for another one's lock."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    command = as_root(
        ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0", "-q", "-y", *arguments], quiet
    )
    step(name, command, quiet, mend="Is the network there? Try by hand: apt-get " + " ".join(arguments))


def require(packages: Sequence[str]) -> None:
    """Packages that only one command needs; installed when that command runs. Raises BuildFailure."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise BuildFailure(f"this needs a Debian host, with these packages: {' '.join(packages)}")
    wanted = missing(tuple(dict.fromkeys(packages)))
    if wanted:
        say(f"installing {len(wanted)} Debian packages on this host: {' '.join(wanted)}")
        apt("apt-update", "update")
        apt("apt-install", "install", "--no-install-recommends", *wanted)


def install_packages() -> None:
    """Install what is missing; no call to apt where nothing is. Raises BuildFailure."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        _other_distribution()
        return
    wanted = missing(PACKAGES)
    # Tried once for each kernel: a kernel that is nobody's package must not cost an apt call per run.
    optional = Stamp(BUILD / "stamp/headers", digest([], platform.release()))
    if wanted:
        say(f"installing {len(wanted)} Debian packages: {' '.join(wanted)}")
        apt("apt-update", "update")
        apt("apt-install", "install", "--no-install-recommends", *wanted)
    if not optional.fresh():
        _install_headers()
        optional.set()


def _install_headers() -> None:
    candidates = headers_candidates()
    if len(missing(candidates)) < len(candidates):
        return
    for package in candidates:
        if not available(package):
            continue
        say(f"installing kernel headers for `accord trace`: {package}")
        try:
            apt("apt-headers", "install", "--no-install-recommends", package)
        except BuildFailure as error:
            say(f"without kernel headers only `accord trace` is missing ({error})")
        return
    say("no kernel headers package for this kernel: all but `accord trace` works without")


def _other_distribution() -> None:
    """Not Debian: say what to install rather than guess another package manager's names."""
    tools = {"clang": "clang", "gcc": "gcc", "make": "make", "openssl": "openssl", "ip": "iproute2"}
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [package for tool, package in tools.items() if shutil.which(tool, path=paths) is None]
    if absent:
        raise BuildFailure(
            f"missing: {', '.join(absent)}. This is no Debian: install what corresponds to these Debian packages, "
            f"then run it again: {' '.join(PACKAGES)}"
        )
