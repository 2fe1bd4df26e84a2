# SPDX-License-Identifier: Apache-2.0
"""The deterministic simulator: hosts that run the real control plane and the real C engine, in virtual time.

Real: the engine, and everything of ``accord.negotiation``, ``accord.protocols`` and ``accord.controller``, from
``Controller.connect`` to ``Exposed`` (docs/SIMULATOR.md). Simulated: the clock, the event loop's sleep, randomness,
sockets and the kernel's TCP, the port that moves packets, and the network. Everything follows from the seed.
"""
