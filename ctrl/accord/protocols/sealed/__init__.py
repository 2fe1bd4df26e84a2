# SPDX-License-Identifier: Apache-2.0
"""What the inner negotiation is made of: key configurations, sealing, messages, and the bound on replays."""
