# SPDX-License-Identifier: Apache-2.0
r"""HTTPS records (RFC 9460), asked for by dnspython, and what they say of the endpoint that is to be connected to.

    example.net.              HTTPS 1 . alpn=h2,h3 key65280
    _8443._https.example.net. HTTPS 1 . key65280="\032\251"

``alpn`` with h3: QUIC is spoken there. Key 65280, of those for private use (section 14.3.2): so is Accord; its value is
empty, or the UDP port in two bytes, which has to be the service's own, since proposals go to no other. Key 65281: the
key configurations that inner negotiations may be sealed to (``accord keys show --dns`` prints it).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Final

import dns.asyncbackend
import dns.asyncresolver
import dns.name
import dns.rdata
from dns.rdtypes.svcbbase import ALPNParam, MandatoryParam, PortParam, SVCBBase

from accord.controller.peers.dns_hints import INNER_KEY, MIN_SECONDS, NOTHING, Hint
from accord.protocols.sealed.configuration import KeyConfiguration, decode_list

# Now, while this process may still be able to read where they are: the library loads both at first use.
dns.asyncbackend.get_backend("asyncio")
dns.rdata.load_all_types(disable_dynamic_load=True)  # type: ignore[no-untyped-call]

ACCORD_KEY: Final = 65280

_MANDATORY, _ALPN, _PORT = 0, 1, 3
_UNDERSTOOD: Final = frozenset({_MANDATORY, _ALPN, 2, _PORT, 4, 6, ACCORD_KEY, INNER_KEY})
"""Keys that a record may demand to be understood (section 8); 2 is no-default-alpn, 4 and 6 are addresses."""
_HTTPS_PORT: Final = 443
_ASK_SECONDS: Final = 5.0
"""For the resolver; nobody waits."""


class Https:
    """A ``Lookup``. ``resolver`` makes one for each question: resolv.conf(5) as it is then."""

    def __init__(self, resolver: Callable[[], dns.asyncresolver.Resolver] = dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver

    async def __call__(self, host: str, port: int) -> tuple[Hint, float]:
        """Raises what dnspython raises."""
        # Section 9.1: a port that is not HTTPS' own stands in the name.
        name = dns.name.from_text(host if port == _HTTPS_PORT else f"_{port}._https.{host}")
        answer = await self._resolver().resolve(
            name, "HTTPS", lifetime=_ASK_SECONDS, raise_on_no_answer=False, search=False
        )
        if answer.rrset is None:
            return NOTHING, MIN_SECONDS
        here = {dns.name.root, dns.name.from_text(host), name, answer.canonical_name}
        return read(answer.rrset, here, port), float(answer.rrset.ttl)


def read(records: Iterable[dns.rdata.Rdata], here: set[dns.name.Name], port: int) -> Hint:
    """What the records say of the service itself; ``here`` are its names. Of others they may say what they like."""
    accord = quic = False
    keys: tuple[KeyConfiguration, ...] = ()
    for record in records:
        if not isinstance(record, SVCBBase) or record.priority == 0:  # AliasMode: of another endpoint
            continue
        parameters = {int(key): value for key, value in record.params.items()}
        demanded = parameters.get(_MANDATORY)
        if isinstance(demanded, MandatoryParam) and not {int(key) for key in demanded.keys} <= _UNDERSTOOD:
            continue
        elsewhere = parameters.get(_PORT)
        if record.target not in here or (isinstance(elsewhere, PortParam) and elsewhere.port != port):
            continue
        alpn = parameters.get(_ALPN)
        quic |= isinstance(alpn, ALPNParam) and b"h3" in alpn.ids
        if ACCORD_KEY in parameters:
            accord |= getattr(parameters[ACCORD_KEY], "value", b"") in (b"", port.to_bytes(2, "big"))
        if INNER_KEY in parameters:
            with contextlib.suppress(ValueError):  # as if it were not there: the peer is asked
                keys = keys or decode_list(getattr(parameters[INNER_KEY], "value", None) or b"")
    return Hint(accord=accord, quic=quic, keys=keys)
