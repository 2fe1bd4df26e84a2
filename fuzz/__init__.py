# SPDX-License-Identifier: Apache-2.0
"""Fuzz targets for what Python reads of foreign bytes, and for whole negotiations (docs/FUZZING.md).

Each module of ``fuzz.targets`` begins with its invariant and has a function ``one(data: bytes)`` that raises when it is
broken. ``./build.py fuzz`` runs them.
"""
