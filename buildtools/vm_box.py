# SPDX-License-Identifier: Apache-2.0
"""The Vagrant box: built from Debian packages, Accord inside it installed as the README says, never downloaded.

A box is a tar of a disk image and a description. The kernel stays outside and is started directly, so there is no
boot loader; a small initial file system loads the drivers of the disk. The disk is written by mke2fs from a
directory: no loop device, no mount.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import List

from buildtools import environment, minimal
from buildtools.console import BUILD, BuildFailure, say, step
from buildtools.host import PACKAGES
from buildtools.stamps import Stamp, digest, files

VM = BUILD / "vm"
NEEDED = (*minimal.NEEDED, "cpio", "e2fsprogs", "kmod", "qemu-utils", "vagrant")
# Which package brings which kernel; the name that people use, as in --kernel.
KERNELS = {"6.1": "linux-image-cloud-amd64"}
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

# As root in the new system, $1 the kernel's metapackage: the kernel and a static busybox, unpacked, in /kernel.
_FETCH = """
cd "$(mktemp -d)"
image=$(apt-cache depends --important "$1" | sed -n 's/^ *Depends: \\(linux-image-[0-9].*\\)/\\1/p' | head -n 1)
apt-get -q download "$image" busybox-static
for package in *.deb; do dpkg-deb -x "$package" /kernel; done
rm -rf "$PWD"
"""


@dataclass(frozen=True)
class Box:
    """What Vagrant and QEMU are handed."""

    file: Path
    kernel: Path
    initrd: Path
    name: str


def box(kernel: str) -> Box:
    """The box for a kernel of ``KERNELS``, built when anything that goes into it has changed. Raises BuildFailure."""
    place = VM / f"box-{kernel}"
    inputs = files("constraints.txt", "pyproject.toml", *environment.NATIVE_SOURCES, "buildtools/vm_box.py")
    value = digest(inputs, *PACKAGES, *ACCOUNT.packages, KERNELS[kernel])
    found = Box(place / "accord.box", place / "vmlinuz", place / "initrd", f"accord-{kernel}-{value[:12]}")
    stamp = Stamp(place / "stamp", value, [found.file, found.kernel, found.initrd])
    if not stamp.fresh():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with minimal.room(VM, keep=False) as root:
            _build(kernel, root, found)
        stamp.set()
    return found


def _build(kernel: str, root: Path, made: Box) -> None:
    say(f"building the box for kernel {kernel}: a minimal Debian 12 with Accord in it, some three minutes")
    minimal.make_root(ACCOUNT, root)
    minimal.inside(ACCOUNT, root, "box-accord", ["./build.py", "build"])
    minimal.inside(ACCOUNT, root, "box-kernel", ["sudo", "sh", "-ec", _FETCH, "sh", KERNELS[kernel]])
    _boot_files(root, made)
    _settle(root)
    image = made.file.parent / "box.img"
    raw = made.file.parent / "disk.raw"
    step("box-disk", ["mke2fs", "-q", "-t", "ext4", "-L", "accord", "-d", str(root), str(raw), DISK])
    step(
        "box-image",
        ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=zstd", str(raw), str(image)],
    )
    raw.unlink()
    _pack(image, made.file)
    image.unlink()


def _boot_files(root: Path, made: Box) -> None:
    """The kernel and its initial file system beside the box, its modules into the root; /kernel goes."""
    unpacked = root / "kernel"
    versions = [path.name for path in (unpacked / "lib/modules").iterdir()]
    if len(versions) != 1:
        raise BuildFailure(f"expected the modules of one kernel, found {versions}")
    version = versions[0]
    modules = root / "usr/lib/modules" / version
    modules.parent.mkdir(exist_ok=True)
    shutil.move(str(unpacked / "lib/modules" / version), str(modules))
    step("box-depmod", ["depmod", "--basedir", str(root), version])
    shutil.copy2(unpacked / f"boot/vmlinuz-{version}", made.kernel)
    initial = unpacked / "initial"
    for directory in ("bin", "dev", "root"):
        (initial / directory).mkdir(parents=True)
    shutil.copy2(unpacked / "bin/busybox", initial / "bin/busybox")
    wanted = _modules(root, version)
    for path in wanted:
        shutil.copy2(path, initial / path.name)
    (initial / "modules").write_text("\n".join(path.name for path in wanted) + "\n")
    (initial / "init").write_text(_INIT)
    (initial / "init").chmod(0o755)
    pack = f"cd {initial} && find . | cpio --quiet -o -H newc | gzip -1 > {made.initrd}"
    step("box-initrd", ["sh", "-ec", pack])
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
