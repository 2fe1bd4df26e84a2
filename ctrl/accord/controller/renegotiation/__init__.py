# SPDX-License-Identifier: Apache-2.0
"""Associations that outlive their stacks: another one is negotiated while data flows. docs/PROTOCOL.md, section 16."""
