# SPDX-License-Identifier: Apache-2.0
"""One of two programs that meet: one meeting for each line of standard input, a JSON object, answered by one.

Both begin at the same moment of the machine's clock, which the order names. ``ready_ms`` is as measured in the daemon,
from the call on.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

from accord.api import rendezvous
from accord.wire.errors import AccordError

_SAYS = b"ready?"


async def meet(order: dict[str, Any]) -> dict[str, Any]:
    """Meet, say something and hear the other say the same."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", order["port"]))
    meeting = rendezvous(
        sock,
        [tuple(order["peer"])],
        order["name"],
        policy=order["policy"],
        server_name=order["expects"],
        ca_file=order["ca_file"],
        certificate=order["certificate"],
        private_key=order["private_key"],
        control=order["control"],
        seconds=15,
    )
    await asyncio.sleep(max(0.0, order["at"] - time.monotonic()))
    try:
        async with meeting as association:
            await association.write(_SAYS)
            heard = b""
            while len(heard) < len(_SAYS) and (more := await association.read()):
                heard += more
            report = association.report
    finally:
        sock.close()
    return {"ready_ms": report["ready_ms"], "role": report["role"], "stack": report["stack"], "heard": heard == _SAYS}


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer: dict[str, Any] = {"ok": True, **asyncio.run(meet(order))}
        except (AccordError, OSError) as failure:
            answer = {"ok": False, "failure": str(failure)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
