-- SPDX-License-Identifier: Apache-2.0
-- What nginx.conf calls, as the global `qnet`: a look-up in a table, and no `require` for each request.
local choose = require("qnet.choose")
local metrics = require("qnet.metrics")

return {
    admit = choose.admit,
    count = metrics.count,
    done = choose.done,
    log = metrics.log,
    pick = choose.pick,
    stick = choose.stick,
}
