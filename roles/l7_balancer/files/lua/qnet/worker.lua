-- SPDX-License-Identifier: Apache-2.0
-- What each worker does when it starts.
local health = require("qnet.health")
local metrics = require("qnet.metrics")

local worker = {}

function worker.start()
    -- What a request leaves behind is little beside the pods, which stay and are looked at in each collection: with one whenever
    -- the heap has doubled, that is about 450 of a request's 35,000 instructions. The heap may become four times as large instead.
    collectgarbage("setpause", 400)
    math.randomseed(ngx.worker.pid() + ngx.now())
    metrics.start()
    if ngx.worker.id() == 0 then
        health.start()
    end
end

return worker
