# SPDX-License-Identifier: Apache-2.0
"""The negotiation and the plain connection beside it, and who of them wins."""
