# SPDX-License-Identifier: Apache-2.0
"""What strangers ask of this host: cookies and their keys, the level that is in force (PROTOCOL.md, section 21)."""
