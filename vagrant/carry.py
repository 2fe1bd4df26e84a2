# SPDX-License-Identifier: Apache-2.0
"""Run on the guests: one file over one association, from a program's hands into a program's hands.

carry.py serve PORT            takes associations for ever; answers each with the SHA-256 of what it sent, in hex
carry.py send SPEC             SPEC is JSON: address, port, policy, server_name, ca_file, bytes; prints a JSON object

The file says in clear text what it is, in every line, so that a capture can be searched for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from typing import Any, BinaryIO

import accord

MARK = b"accord clear text"
WORK = "/tmp/accord-vm"


def write_file(file: BinaryIO, size: int) -> str:
    """So many bytes of numbered lines; their SHA-256."""
    digest, written, number = hashlib.sha256(), 0, 0
    while written < size:
        lines = b"".join(b"%s %012d\n" % (MARK, number + each) for each in range(4096))
        piece = lines[: size - written]
        file.write(piece)
        digest.update(piece)
        written, number = written + len(piece), number + 4096
    file.flush()
    file.seek(0)
    return digest.hexdigest()


async def serve(port: int) -> None:
    """Until it is killed."""
    async with accord.listen(port, certificate=f"{WORK}/server.pem", private_key=f"{WORK}/server.key") as listener:
        print("listening", flush=True)
        async for association in listener:
            digest = hashlib.sha256()
            try:
                while piece := await association.read(1 << 18):
                    digest.update(piece)
                inside = association.report["inside"]
                answer = {"sha256": digest.hexdigest(), "stack": association.stack, "inside": inside}
                await association.write(json.dumps(answer).encode())
                await association.finish()
                await association.read_all()
                await association.close()
            except Exception as failure:  # the next one may do better
                print(f"{type(failure).__name__}: {failure}", flush=True)


async def send(spec: dict[str, Any]) -> dict[str, Any]:
    """The file, by sendfile(2) where the stream is a kernel socket."""
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        digest = write_file(file, spec["bytes"])
        begin = time.monotonic()
        async with accord.connect(
            f"{spec['address']}:{spec['port']}",
            spec["policy"],
            server_name=spec["server_name"],
            ca_file=spec["ca_file"],
        ) as association:
            by_kernel = association.carrier.kernel_socket is not None
            sent = await association.sendfile(file)
            await association.finish()
            answer = json.loads(await association.read_all())
            return {
                "seconds": round(time.monotonic() - begin, 3),
                "sent": sent,
                "sendfile": by_kernel,
                "sha256": digest,
                "peer": answer,
                "stack": association.stack,
                "inside": association.report["inside"],
            }


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        print(json.dumps(asyncio.run(send(json.loads(sys.argv[2])))))
