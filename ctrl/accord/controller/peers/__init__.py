# SPDX-License-Identifier: Apache-2.0
"""The memory of peers: what is known of them, how it is learnt, kept and asked for."""
