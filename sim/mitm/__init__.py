# SPDX-License-Identifier: Apache-2.0
"""A man in the middle of simulated conversations: who he is, what he does to them, and what may come of it.

He is on the path, reads and writes every packet, and can compute every hash; the keys of a security node he has not.
"""
