# SPDX-License-Identifier: Apache-2.0
"""Stacks that are only planned by the negotiation: sockets that set themselves up after it, by their own protocol."""
