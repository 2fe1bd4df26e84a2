# SPDX-License-Identifier: Apache-2.0
"""Two hosts with daemons, as for the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import hosts

__all__ = ["hosts"]
