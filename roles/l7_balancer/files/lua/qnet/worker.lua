-- SPDX-License-Identifier: Apache-2.0
-- What each worker does when it starts.
local health = require("qnet.health")
local metrics = require("qnet.metrics")

local worker = {}

function worker.start()
    math.randomseed(ngx.worker.pid() + ngx.now())
    metrics.start()
    if ngx.worker.id() == 0 then
        health.start()
    end
end

return worker
