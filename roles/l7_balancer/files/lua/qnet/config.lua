-- SPDX-License-Identifier: Apache-2.0
-- What the renderer tells about routes and listeners. Loaded once, before the workers fork.
local cjson = require("cjson.safe")

local config = { routes = {}, listeners = {}, upstreams = {}, tenants = {} }

function config.load(text, release)
    local given = assert(cjson.decode(text))
    config.routes, config.listeners, config.tenants = given.routes, given.listeners, given.tenants
    for key, route in pairs(config.routes) do
        route.key = key
        for _, backend in ipairs(route.backends) do
            config.upstreams[backend.upstream] =
                { route = route, service = backend.service, port = backend.port, picked = {} }
        end
    end
    config.release = release
end

-- The upstream that a request of a route goes to; nil while there are several and none was chosen.
function config.target(key)
    local backends = config.routes[key].backends
    return config.upstreams[#backends == 1 and backends[1].upstream or ngx.var.qnet_backend]
end

return config
