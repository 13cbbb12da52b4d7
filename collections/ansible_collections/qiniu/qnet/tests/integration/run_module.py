# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one module of the collection in this process: ``run_module.py NAME < parameters.json``."""

from __future__ import annotations

import importlib
import json
import sys

from ansible.module_utils.testing import patch_module_args

if __name__ == "__main__":
    with patch_module_args(json.load(sys.stdin)):
        importlib.import_module(f"ansible_collections.qiniu.qnet.plugins.modules.{sys.argv[1]}").main()
