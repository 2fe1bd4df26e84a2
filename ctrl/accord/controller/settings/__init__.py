# SPDX-License-Identifier: Apache-2.0
"""The policy and the configuration: TOML files read into what holds."""
