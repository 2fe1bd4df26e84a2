# SPDX-License-Identifier: Apache-2.0
"""``accord trace``: asking a running host a new question, with bcc, without touching the daemon."""
