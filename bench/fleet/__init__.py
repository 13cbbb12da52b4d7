# SPDX-License-Identifier: Apache-2.0
"""A fleet of fake switches for tests and benches: OpenFlow over mutual TLS, everything that comes back is verified.

`wire` says what switches say, `decode` reads what controllers say; neither shares a line with the controller. `switch`
is one connection, `process` runs many of them in a process of their own, `intent` fills a real ovsdb-server, `stage`
puts database, controller and fleet together.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_TESTS = str(REPOSITORY / "controller" / "tests")
if _TESTS not in sys.path:  # the CA and the private ovsdb-server of the tests serve here as well
    sys.path.append(_TESTS)
