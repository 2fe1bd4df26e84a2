# SPDX-License-Identifier: Apache-2.0
"""The connection of a parallel SYN, on both sides: how it is found and whose it becomes."""
