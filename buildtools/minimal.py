# SPDX-License-Identifier: Apache-2.0
"""A minimal Debian 12 in a directory, made by mmdebstrap from the host's apt sources, and commands run in it.

What runs there runs in a mount and a PID namespace of its own: with the last process every mount is gone, and the
host's own view never had any, so the directory can be removed at any time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

from buildtools.console import ROOT, BuildFailure, StepFailure, say, step

SUITE = "bookworm"
NEEDED = ("mmdebstrap", "git", "util-linux")
# What a program behind a proxy or an index of its own needs to know.
PASSED_ON = re.compile(r"(?i)(https?_proxy|no_proxy|PIP_(?!CONFIG_FILE)\w+)$")


@dataclass(frozen=True)
class Account:
    """Who starts the commands: packages that the root has beside the minimal set, home, name."""

    name: str
    packages: Tuple[str, ...]
    home: str

    @property
    def clone(self) -> str:
        """The fresh clone, as seen from inside."""
        return f"{self.home}/accord"


# ---- The root ---------------------------------------------------------------------------------------------


def make_root(account: Account, place: Path) -> None:
    """Debian's minimal set and the account's packages in the empty ``place``, and a clone of the last commit."""
    command = ["mmdebstrap", "--variant=minbase", "--mode=root"]
    command += [f"--aptopt={line}" for line in _apt_options()]
    if account.packages:
        command.append(f"--include={','.join(account.packages)}")
    command += [SUITE, str(place), *apt_sources()]
    step(f"{account.name}-root", own_mounts(command), mend="Are the host's apt sources reachable? apt-get update")
    _copy_configuration(account, place)
    clone = place / account.clone.lstrip("/")
    step(f"{account.name}-clone", ["git", "clone", "--no-hardlinks", "--quiet", str(ROOT), str(clone)])
    if account.name != "root":
        _user(account, place)


def apt_sources(directory: Path = Path("/etc/apt")) -> List[str]:
    """The host's sources of Debian 12; none means mmdebstrap's own, which is deb.debian.org."""
    suite = re.compile(rf"(?m)^(?!\s*#).*(?<![\w-]){SUITE}(-updates|-security)?(?![\w-])")
    candidates = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    return [str(path) for path in candidates if path.is_file() and suite.search(path.read_text(errors="replace"))]


def _apt_options() -> List[str]:
    """The host's way to its mirror, such as a proxy."""
    wanted = re.compile(r"Acquire::https?::(?:\S*::)?(Proxy|CaInfo)\S* ")
    return [line for line in output("apt-config", "dump").splitlines() if wanted.match(line)]


def _copy_configuration(account: Account, place: Path) -> None:
    """Names, pip's configuration, certificates of the host's own: what a machine in this network would have."""
    copies = [(Path(path), path) for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")]
    copies += [(Path.home() / path, f"{account.home}/{path}") for path in (".config/pip/pip.conf", ".pip/pip.conf")]
    for source in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        copies.append((source, str(source)))
    for source, target in copies:
        if source.is_file():
            inside = place / target.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.unlink(missing_ok=True)
            shutil.copyfile(source, inside)


def package_directories() -> List[str]:
    """Local directories that pip's configuration names as an index: seen inside under the same name, read-only."""
    paths = ("/etc/pip.conf", Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf")
    texts = [Path(path).read_text(errors="replace") for path in paths if Path(path).is_file()]
    texts += passed_on().values()
    found = re.findall(r"(?<![\w/.:-])(?:file://)?(/[\w./-]+)", "\n".join(texts))
    # An index in the form of PEP 503 has its files beside its directory "simple".
    places = {os.path.dirname(path) if os.path.basename(path) == "simple" else path for path in found}
    return sorted(path for path in places if path != "/" and Path(path).is_dir())


def _user(account: Account, place: Path) -> None:
    """An ordinary user who may call sudo without a password, and owns the clone."""
    rule = place / "etc/sudoers.d/accord"
    rule.write_text(f"{account.name} ALL=(ALL) NOPASSWD: ALL\n")
    rule.chmod(0o440)
    step(
        f"{account.name}-useradd",
        ["chroot", str(place), "useradd", "--shell", "/bin/bash", "--home-dir", account.home, account.name],
    )
    step(
        f"{account.name}-chown",
        ["chroot", str(place), "chown", "-R", f"{account.name}:{account.name}", account.home],
    )


# ---- Inside -----------------------------------------------------------------------------------------------


def own_mounts(command: Sequence[str]) -> List[str]:
    """Mount and PID namespaces for one command; the kernel removes mounts and processes with it, whatever its end.

    The shell stays, as PID 1, and collects the processes that the command leaves behind.
    """
    shell = ["sh", "-c", '"$@"; exit "$?"', "sh"]
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", *shell, *command]


# Mounts the root and becomes the command in it: $1 root, $2 account, $3 directories to show, then the command.
_ENTER = """
root=$1 account=$2 directories=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
for directory in $directories; do
    mkdir -p "$root$directory"
    mount --bind -o ro "$directory" "$root$directory"
done
exec chroot --userspec="$account" "$root" env -i "$@"
"""


def inside(account: Account, place: Path, name: str, command: Sequence[str]) -> None:
    """Run in the clone, with an environment as after a login, and the output in the log ``name``."""
    environment = {
        "HOME": account.home,
        "USER": account.name,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        **passed_on(),
    }
    enter = ["sh", "-ec", _ENTER, "sh", str(place), account.name, " ".join(package_directories())]
    enter += [f"{key}={value}" for key, value in environment.items()]
    enter += ["sh", "-c", 'cd "$0" && exec "$@"', account.clone, *command]
    step(name, own_mounts(enter), mend=f"It ran as {account.name} in {place}; --keep keeps that root to look into.")


# ---- Small things -------------------------------------------------------------------------------------------


@contextmanager
def room(parent: Path, keep: bool) -> Iterator[Path]:
    """An empty directory that goes whatever happens (but kill -9), unless it is to be kept."""
    if shutil.disk_usage(parent).free < 4 << 30:
        raise BuildFailure(f"{parent} has less than 4 GB of room: choose another with --directory")
    with terminable():
        place = Path(tempfile.mkdtemp(prefix="accord-root-", dir=parent))
        try:
            place.chmod(0o755)
            yield place
        finally:
            if keep:
                say(f"kept: {place} (rm -rf it; it has no mounts)")
            else:
                # Our own view has no mounts in it, so nothing but the root's own files can be met here.
                shutil.rmtree(place)
                say(f"removed {place}")


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored (nohup), end the run as Ctrl-C does: with everything cleaned up."""

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    ending = [signal.SIGTERM, *([signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else [])]
    previous = {number: signal.signal(number, interrupt) for number in ending}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def passed_on() -> Dict[str, str]:
    """Of our own environment what apt and pip may need to reach their mirrors."""
    return {name: value for name, value in os.environ.items() if PASSED_ON.match(name)}


def output(*command: str) -> str:
    """What a command prints, in the project's directory. Raises StepFailure where it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True, check=False)
    if done.returncode != 0:
        raise StepFailure(f"{shlex.join(command)} failed (exit code {done.returncode})")
    return done.stdout
