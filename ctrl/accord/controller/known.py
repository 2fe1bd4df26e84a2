# SPDX-License-Identifier: Apache-2.0
"""The names that policies may use: those of the built-in protocols and of installed plug-ins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from accord.controller.settings.policy import EffectivePolicy
from accord.controller.settings.stacks import PROTOCOLS
from accord.wire.errors import UserError


@functools.cache
def known_protocols() -> Mapping[str, int]:
    """Protocol IDs by name. Imports every plug-in, the first time."""
    from accord.protocols.registry import load_plugins

    plugins, _ = load_plugins()
    return {**PROTOCOLS, **{plugin.name: plugin.protocol for plugin in plugins.values()}}


def check_wishes(wishes: Mapping[str, Any]) -> None:
    """Whether a policy that a program asks for can be read at all. Raises ``UserError`` (BAD_CONFIG).

    As a rule without the plug-ins, which take a while to be imported: they are asked for names that are not built in.
    """
    try:
        EffectivePolicy().override(wishes)
    except UserError:
        EffectivePolicy(protocols=known_protocols()).override(wishes)
