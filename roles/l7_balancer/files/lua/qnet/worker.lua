-- SPDX-License-Identifier: Apache-2.0
-- What each worker does when it starts.
local health = require("qnet.health")
local metrics = require("qnet.metrics")

local worker = {}

function worker.start()
    -- A request leaves less than a hundred bytes behind. Collecting when the heap has doubled costs each of them ten times that
    -- in looking at pods that stay; these are a few megabytes, which may become four times as many.
    collectgarbage("setpause", 400)
    math.randomseed(ngx.worker.pid() + ngx.now())
    metrics.start()
    if ngx.worker.id() == 0 then
        health.start()
    end
end

return worker
