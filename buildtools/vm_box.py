# SPDX-License-Identifier: Apache-2.0
"""The Vagrant box: built from Debian packages, Accord inside it installed as the README says, never downloaded.

A box is a tar of a disk image and a description. The kernel stays outside and is started directly, so there is no
boot loader; a small initial file system loads the drivers of the disk. The disk is written by mke2fs from a
directory: no loop device, no mount.

One box serves every kernel: it holds the modules and headers of each, and which one runs is said at the start. Those of
backports come with backports' QEMU: Debian 12's own runs them, but not always to the end. Where the mirror has no
backports, the box is made without, and says so.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

from buildtools import environment, minimal
from buildtools.console import BUILD, BuildFailure, say, step
from buildtools.host import PACKAGES
from buildtools.stamps import Stamp, digest, files

VM = BUILD / "vm"
NEEDED = (*minimal.NEEDED, "cpio", "e2fsprogs", "kmod", "qemu-utils", "vagrant")
# Which suite's linux-image-cloud-amd64 is which kernel; the name that people use, as in --kernel.
KERNELS = {"6.1": minimal.SUITE, "6.12": f"{minimal.SUITE}-backports"}
# QEMU of backports, unpacked beside the box; what else it needs is in the host's packages of QEMU.
EMULATOR = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
# What stands between a kernel of Debian's and its root on a virtio disk.
DRIVERS = ("virtio_pci", "virtio_blk", "ext4")
DISK = "6G"
ACCOUNT = minimal.Account(
    "vagrant",
    ("sudo", "openssh-server", "systemd-sysv", "dbus", "udev", "kmod", "rsync", "iputils-ping"),
    "/home/vagrant",
)

# Started by the kernel in place of a distribution's: load the drivers in order, mount the disk, go on there.
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules); do
    /bin/busybox insmod "/$module"
done
until [ -b /dev/vda ]; do
    /bin/busybox sleep 0.1
done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""

# As root in the new system, $1 the suite: its kernel, that one's headers and a static busybox, unpacked in /kernel.
# Another suite than the system's own is added first, from the mirror that the system's own is from.
_FETCH = """
cd "$(mktemp -d)"
if [ "$1" != "$2" ]; then
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $2" | head -n 1)
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$key] $site $1 main" > /etc/apt/sources.list.d/accord-kernel.list
    apt-get -q update
fi
list() { apt-get -q -s -t "$1" --no-install-recommends install "$2-cloud-amd64"; }
names=$( { list "$1" linux-image; list "$1" linux-headers; } |
    sed -n 's/^Inst \\(linux-[a-z]*-[0-9][^ ]*-\\(cloud-amd64\\|common\\)\\) .*/\\1/p')
apt-get -q -t "$1" download $names busybox-static
for package in *.deb; do dpkg-deb -x "$package" /kernel; done
rm -rf "$PWD"
"""

# Likewise, the packages of backports' QEMU, in /emulator.
_FETCH_EMULATOR = """
cd "$(mktemp -d)"
suite=$1; shift
apt-get -q -t "$suite" download "$@"
for package in *.deb; do dpkg-deb -x "$package" /emulator; done
rm -rf "$PWD"
"""


class NoKernel(BuildFailure):
    """The box is there, but not this kernel: the mirror had none."""


@dataclass(frozen=True)
class Box:
    """What Vagrant and QEMU are handed."""

    file: Path
    kernel: Path
    initrd: Path
    name: str
    emulator: Optional[Path]
    """Where another QEMU was unpacked; None: the host's."""


def box(kernel: str) -> Box:
    """The box, built when anything that goes into it has changed, to be started with a kernel of ``KERNELS``.

    Raises BuildFailure; NoKernel where that kernel could not be had when the box was built.
    """
    place = VM / "box"
    value = _digest()
    file, listed = place / "accord.box", place / "kernels.json"
    stamp = Stamp(place / "stamp", value, [file, listed])
    if not stamp.fresh():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with minimal.room(VM, keep=False) as root:
            _build(root, place, file, listed)
        stamp.set()
    refused: Dict[str, str] = json.loads(listed.read_text(encoding="utf-8"))
    if refused[kernel]:
        raise NoKernel(
            f"there was no kernel {kernel} when the box was built: {refused[kernel]}. "
            "With another mirror: ./build.py clean (or rm -r build/vm/box), then again; or --kernel 6.1"
        )
    return Box(file, place / f"vmlinuz-{kernel}", place / f"initrd-{kernel}", name(), _emulator(place, kernel))


def name() -> str:
    """What the box of these sources is called, whether it is built or not."""
    return f"accord-{_digest()[:12]}"


def _digest() -> str:
    """Of all that goes into the box but Python sources, which are copied into machines."""
    inputs = files("constraints.txt", "pyproject.toml", *environment.NATIVE_SOURCES, "buildtools/vm_box.py")
    return digest(inputs, *PACKAGES, *ACCOUNT.packages, *KERNELS.values(), *EMULATOR)


def _build(root: Path, place: Path, file: Path, listed: Path) -> None:
    say("building the box: a minimal Debian 12 with Accord in it, some three minutes on an idle machine")
    minimal.make_root(ACCOUNT, root)
    minimal.inside(ACCOUNT, root, "box-accord", ["./build.py", "build"])
    refused: Dict[str, str] = {}
    for kernel, suite in KERNELS.items():
        refused[kernel] = ""
        try:
            fetch = ["sudo", "sh", "-ec", _FETCH, "sh", suite, minimal.SUITE]
            minimal.inside(ACCOUNT, root, f"box-kernel-{kernel}", fetch)
            _boot_files(root, place, kernel)
            if suite != minimal.SUITE:
                _take_emulator(root, place, suite)
        except BuildFailure as failure:
            if suite == minimal.SUITE:
                raise
            refused[kernel] = str(failure).splitlines()[0]
            say(f"going on without kernel {kernel}: {refused[kernel]}")
            shutil.rmtree(root / "kernel", ignore_errors=True)
    _settle(root)
    image, raw = place / "box.img", place / "disk.raw"
    step("box-disk", ["mke2fs", "-q", "-t", "ext4", "-L", "accord", "-d", str(root), str(raw), DISK])
    step(
        "box-image",
        ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", str(raw), str(image)],
    )
    raw.unlink()
    _pack(image, file)
    image.unlink()
    listed.write_text(json.dumps(refused), encoding="utf-8")


def _take_emulator(root: Path, place: Path, suite: str) -> None:
    """Out of the root, where it was unpacked only because apt knows the suite there."""
    minimal.inside(ACCOUNT, root, "box-emulator", ["sudo", "sh", "-ec", _FETCH_EMULATOR, "sh", suite, *EMULATOR])
    shutil.move(str(root / "emulator"), str(place / "emulator"))


def _emulator(place: Path, kernel: str) -> Optional[Path]:
    """Backports' QEMU for backports' kernel, if it runs on this host."""
    if KERNELS[kernel] == minimal.SUITE:
        return None
    unpacked = place / "emulator"
    program = unpacked / "usr/bin/qemu-system-x86_64"
    tried = subprocess.run([str(program), "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if tried.returncode == 0:
        return unpacked
    words = tried.stdout.decode(errors="replace").strip().splitlines()[-1:]
    say(f"backports' QEMU does not run here ({' '.join(words)}): with the host's, kernel {kernel} may hang at boot")
    return None


def _boot_files(root: Path, place: Path, kernel: str) -> None:
    """The kernel and its initial file system beside the box, its modules and headers into the root; /kernel goes."""
    unpacked = root / "kernel"
    versions = [path.parent.name for path in (unpacked / "lib/modules").glob("*/kernel")]
    if len(versions) != 1:
        raise BuildFailure(f"expected the modules of one kernel, found {versions}")
    version = versions[0]
    for directory in ("lib/modules", "usr/src", "usr/lib"):
        # /lib is a link into /usr there. Copied with links as links: build and source lead to the headers.
        if (unpacked / directory).exists():
            target = root / ("usr/lib/modules" if directory == "lib/modules" else directory)
            shutil.copytree(str(unpacked / directory), str(target), symlinks=True, dirs_exist_ok=True)
    step(f"box-depmod-{kernel}", ["depmod", "--basedir", str(root), version])
    shutil.copy2(unpacked / f"boot/vmlinuz-{version}", place / f"vmlinuz-{kernel}")
    initial = unpacked / "initial"
    for directory in ("bin", "dev", "root"):
        (initial / directory).mkdir(parents=True)
    shutil.copy2(unpacked / "bin/busybox", initial / "bin/busybox")
    wanted = _modules(root, version)
    for path in wanted:  # busybox takes them as they are only when nothing compresses them
        data = path.read_bytes()
        (initial / path.name.removesuffix(".xz")).write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
    (initial / "modules").write_text("\n".join(path.name.removesuffix(".xz") for path in wanted) + "\n")
    (initial / "init").write_text(_INIT)
    (initial / "init").chmod(0o755)
    pack = f"cd {initial} && find . | cpio --quiet -o -H newc | gzip -1 > {place / f'initrd-{kernel}'}"
    step(f"box-initrd-{kernel}", ["sh", "-ec", pack])
    shutil.rmtree(unpacked)


def _modules(root: Path, version: str) -> List[Path]:
    """Files of DRIVERS and of what they need, in the order in which they have to be loaded."""
    listed: List[Path] = []
    for driver in DRIVERS:
        text = minimal.output("modprobe", "--dirname", str(root), "--set-version", version, "--show-depends", driver)
        for found in re.findall(r"^insmod (\S+)", text, re.MULTILINE):
            path = Path(found)
            if path not in listed:
                listed.append(path)
    return listed


def _settle(root: Path) -> None:
    """What makes a machine of the directory: network, names, the key that Vagrant knows, no timers."""
    _write(root, "etc/hostname", "accord\n")
    _write(root, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    _write(root, "etc/fstab", "/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    _write(root, "etc/systemd/network/20-eth0.network", "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n")
    # mke2fs drops file capabilities, so ping needs the other way.
    _write(root, "etc/sysctl.d/50-ping.conf", "net.ipv4.ping_group_range = 0 2147483647\n")
    _write(root, "etc/ssh/sshd_config.d/vagrant.conf", "UseDNS no\nGSSAPIAuthentication no\n")
    enable = ["systemctl", f"--root={root}", "enable", "systemd-networkd", "ssh"]
    timers = ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer"]
    step("box-units", ["chroot", str(root), "systemctl", *enable[2:]])
    step("box-timers", ["chroot", str(root), "systemctl", "mask", *timers])
    step("box-clean", ["chroot", str(root), "apt-get", "clean"])
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
    keys = root / "home/vagrant/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(_public_key(), keys / "authorized_keys")
    step("box-keys", ["chroot", str(root), "chown", "-R", "vagrant:vagrant", "/home/vagrant/.ssh"])
    (root / "etc/sudoers.d/accord").rename(root / "etc/sudoers.d/vagrant")


def _public_key() -> Path:
    """The one that everybody knows: it comes with Vagrant, whose private half `vagrant ssh` uses."""
    listed = minimal.output("dpkg", "-L", "vagrant").splitlines()
    found = [Path(line) for line in listed if line.endswith("/keys/vagrant.pub")]
    if not found:
        raise BuildFailure("Debian's package vagrant has no keys/vagrant.pub: apt-get install --reinstall vagrant")
    return found[0]


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def _pack(image: Path, target: Path) -> None:
    """The box format of vagrant-libvirt; the image is compressed already."""
    size = int(json.loads(minimal.output("qemu-img", "info", "--output=json", str(image)))["virtual-size"])
    description = target.parent / "metadata.json"
    description.write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": -(-size // (1 << 30))})
    )
    vagrantfile = target.parent / "Vagrantfile"
    vagrantfile.write_text('Vagrant.configure("2") { |config| config.vm.provider :libvirt }\n')
    with tarfile.open(target, "w") as archive:
        for path in (description, vagrantfile, image):
            archive.add(path, path.name)
    for path in (description, vagrantfile):
        path.unlink()
