# SPDX-License-Identifier: Apache-2.0
"""The parts of build.py. Standard library only: all of it runs before the virtual environment exists."""
