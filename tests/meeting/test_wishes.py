# SPDX-License-Identifier: Apache-2.0
"""What a program may say over the control socket when it wants to meet somebody, and what it may not."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from accord.controller.association import Association, Report
from accord.controller.control import Channel
from accord.daemon.meeting import met
from accord.daemon.operations import Operations
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

FILES = [None, Path("chain.pem"), Path("key.pem")]
SOUND: dict[str, Any] = {"peers": [["192.0.2.1", 4000]], "name": "tea", "server_name": "bob.example"}


class Controller:
    """Takes what it is given."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def rendezvous(self, sock: socket.socket, candidates: Any, **more: Any) -> Association:
        self.asked.append((candidates, more))
        sock.close()
        return Association(SimpleNamespace(), Report("somebody", ladder=[{"text": "a line"}]))  # type: ignore[arg-type]


def wish(**more: Any) -> tuple[Controller, socket.socket, Association | AccordError]:
    controller, sock = Controller(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    files = more.pop("files", FILES)
    try:
        found: Any = asyncio.run(met(controller, {**SOUND, "socket": sock, **more}, files))  # type: ignore[arg-type]
    except AccordError as failure:
        found = failure
    return controller, sock, found


def test_a_sound_wish_reaches_the_controller() -> None:
    controller, _, found = wish(seconds=5, policy={"secure": "required"}, verify=False, ladder=True)
    assert isinstance(found, Association)
    assert found.report.ladder
    ((candidates, more),) = controller.asked
    assert candidates == [("192.0.2.1", 4000)]
    assert (more["name"], more["seconds"], more["overrides"]) == ("tea", 5.0, {"secure": "required"})
    assert more["security"].verify is False
    assert more["security"].server_name == "bob.example"


@pytest.mark.parametrize(
    "more",
    [
        {"peers": None},
        {"peers": []},
        {"peers": [["192.0.2.1"]]},
        {"peers": [["192.0.2.1", "4000"]]},
        {"peers": [["192.0.2.1", True]]},
        {"peers": [[1, 4000]]},
        {"peers": "192.0.2.1:4000"},
        {"seconds": 0},
        {"seconds": -1.0},
        {"seconds": 1e9},
        {"seconds": "long"},
        {"name": None},
        {"name": ["tea"]},
        {"policy": ["secure"]},
        {"server_name": 7},
        {"files": [None, None, Path("key.pem")]},
        {"files": [None, Path("chain.pem"), None]},
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_read_is_refused_and_the_socket_closed(more: dict[str, Any]) -> None:
    controller, sock, found = wish(**more)
    assert isinstance(found, AccordError)
    assert found.reason is Reason.BAD_CONFIG
    assert controller.asked == []
    assert sock.fileno() == -1


@pytest.mark.parametrize("passed", ["nothing", "a file"])
def test_what_is_no_socket_is_refused(tmp_path: Path, passed: str) -> None:
    (tmp_path / "file").write_text("no socket")
    descriptors = [] if passed == "nothing" else [os.open(tmp_path / "file", os.O_RDONLY)]

    async def ask() -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with one, other:
            operations = Operations(Controller())  # type: ignore[arg-type]
            await operations.handle({"op": "rendezvous", **SOUND, "socket": "mine"}, Channel(one), descriptors)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AccordError) as refusal:
        asyncio.run(ask())
    assert refusal.value.reason is Reason.BAD_CONFIG
    assert len(os.listdir("/proc/self/fd")) == before - len(descriptors)
