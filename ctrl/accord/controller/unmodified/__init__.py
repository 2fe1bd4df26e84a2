# SPDX-License-Identifier: Apache-2.0
"""Connections of programs that know nothing of Accord: their own SYNs, negotiated for (docs/OPERATIONS.md)."""
