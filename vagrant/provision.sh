#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run as the user vagrant: installs Accord as the README says. In a box of ours its packages are there already.
set -eu
cd "$HOME/accord"
./build.py build
sudo ln -sf "$PWD/.venv/bin/accord" /usr/local/bin/accord
accord --version
