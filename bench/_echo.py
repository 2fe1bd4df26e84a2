# SPDX-License-Identifier: Apache-2.0
"""One association, tried: what is said over it comes back."""

from __future__ import annotations

from accord.controller.association import Association


async def echoed(association: Association, text: bytes) -> str:
    """Say ``text``, read it back, finish and close. "ok", or what was wrong: other bytes, or a plain connection."""
    carrier = association.carrier
    try:
        await carrier.write(text)
        back = b""
        while len(back) < len(text) and (piece := await carrier.read()):
            back += piece
        await carrier.finish()
    finally:
        await carrier.close()
    if back != text:
        return f"{text!r} came back as {back!r}"
    return "ok" if association.report.negotiated else "not negotiated"
