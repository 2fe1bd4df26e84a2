# SPDX-License-Identifier: Apache-2.0
"""Finding one's own cgroup, in the texts that hosts of several kinds show (cgroups(7), proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from accord.datapath.cgroup import find, own_cgroup
from accord.wire.constants import Reason
from accord.wire.errors import HostError

HYBRID = "9:name=systemd:/\n4:memory:/service/1\n0::/\n"
UNIFIED = "0::/system.slice/accord.service\n"
OLD = "4:memory:/service/1\n1:name=systemd:/user.slice\n"

LINE = "35 24 0:30 {root} {point} rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "24 1 8:1 / / rw - ext4 /dev/root rw\n31 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def mounts(root: str = "/", point: str = "/sys/fs/cgroup") -> str:
    """A mountinfo with one file system of version 2."""
    return OTHERS + LINE.format(root=root, point=point)


@pytest.mark.parametrize(
    ("mine", "mounted", "found"),
    [
        (UNIFIED, mounts(), "/sys/fs/cgroup/system.slice/accord.service"),
        (HYBRID, mounts(point="/sys/fs/cgroup/unified"), "/sys/fs/cgroup/unified"),
        (UNIFIED, mounts(point="/mnt/a\\040blank"), "/mnt/a blank/system.slice/accord.service"),
        (UNIFIED, mounts(root="/system.slice", point="/cg"), "/cg/accord.service"),
        (UNIFIED, mounts(root="/user.slice") + mounts(point="/whole"), "/whole/system.slice/accord.service"),
    ],
)
def test_the_directory_is_the_mount_point_and_the_path_below_its_root(mine: str, mounted: str, found: str) -> None:
    assert find(mine, mounted) == Path(found)


@pytest.mark.parametrize(
    ("mine", "mounted", "words"),
    [
        (OLD, mounts(), "in no cgroup of version 2"),
        (UNIFIED, OTHERS, "no cgroup2 file system is mounted"),
        (UNIFIED, "", "no cgroup2 file system is mounted"),
        (UNIFIED, mounts(root="/user.slice"), "not among those that are mounted here"),
        # A cgroup namespace that was entered from outside.
        ("0::/../other\n", mounts(root="/mine"), "not among those that are mounted here"),
    ],
)
def test_a_host_without_one_says_what_is_missing_and_what_mends_it(mine: str, mounted: str, words: str) -> None:
    with pytest.raises(HostError) as refused:
        find(mine, mounted)
    assert refused.value.reason is Reason.NO_KERNEL_SUPPORT
    assert words in refused.value.detail
    assert "mount -t cgroup2" in refused.value.mend


def test_the_kernel_lists_this_process_in_the_directory_that_was_found() -> None:
    try:
        directory = own_cgroup()
    except HostError as refusal:
        pytest.skip(str(refusal))
    assert str(os.getpid()) in (directory / "cgroup.procs").read_text().split()
