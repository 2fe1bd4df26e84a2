# SPDX-License-Identifier: Apache-2.0
"""What an application imports: ``accord.connect``, ``accord.listen`` and ``accord.rendezvous``.

Names are those of Post Sockets (Association, Carrier, Listener, Message, Policy, Local, Remote, Path) and,
in the documentation, of RFC 9622 beside them (Connection, Message, Preconnection, Listener).
"""

from accord.api.association import Association
from accord.api.connect import connect
from accord.api.listen import Listener, listen
from accord.api.rendezvous import rendezvous

__all__ = ["Association", "Listener", "connect", "listen", "rendezvous"]
