# SPDX-License-Identifier: Apache-2.0
"""Answers of which nothing is kept but a seed (docs/PROTOCOL.md, section 22)."""
