-- SPDX-License-Identifier: Apache-2.0
-- The pods behind services, as the feeder last said. One shared copy; each worker parses it when its version changes.
local cjson = require("cjson.safe")

local pods = {}
local shared = ngx.shared.qnet_pods
local health = ngx.shared.qnet_health
local known, services = -1, {}
local looked -- when this worker last asked for the version

-- Take over a new set. Returns nil and a reason when it is not one.
function pods.put(text)
    local given, fault = cjson.decode(text)
    if type(given) ~= "table" or type(given.services) ~= "table" then
        return nil, fault or "no services"
    end
    local ok, reason = shared:set("pods", text)
    if not ok then
        return nil, reason
    end
    looked = nil
    return shared:incr("version", 1, 0)
end

-- Something about pods has changed that is not in the set: a check failed, or passes again.
function pods.touch()
    looked = nil
    shared:incr("version", 1, 0)
end

local function parse(version)
    known = version
    local given = cjson.decode(shared:get("pods") or "{}") or {}
    services = given.services or {}
    for name, service in pairs(services) do
        service.name, service.by_name, service.by_id, service.by_index = name, {}, {}, {}
        for _, pod in ipairs(service.pods) do
            service.by_name[pod.name], service.by_id[pod.id] = pod, pod
            pod.peer = pod.address:find(":", 1, true) and "[" .. pod.address .. "]" or pod.address
            if pod.index then
                service.by_index[pod.index] = pod
            end
        end
        service.choices = {}
    end
end

-- The service as it is now: allowed, ports, pods; nil when nothing is known of it. The version is asked for once for all
-- requests of one turn of the worker's loop, at most a millisecond.
function pods.service(name)
    local now = ngx.now()
    if now ~= looked then
        looked = now
        local version = shared:get("version") or 0
        if version ~= known then
            parse(version)
        end
    end
    return services[name], known
end

-- Whether the export (or being of one group) lets the balancer reach the pods themselves at a TCP port.
function pods.allowed(service, port)
    if not service.direct then
        return false
    end
    if not service.ports or #service.ports == 0 then
        return true
    end
    local wanted = "tcp/" .. port
    for _, one in ipairs(service.ports) do
        if one == wanted then
            return true
        end
    end
    return false
end

function pods.is_down(address, port)
    return health:get("down:" .. address .. ":" .. port) ~= nil
end

-- Pods that take new requests at a port, sorted by name: active, of some weight and healthy. When all fail their checks,
-- the checks are not believed. Kept until the next version.
function pods.choices(service, port)
    local found = service.choices[port]
    if found then
        return found
    end
    found = {}
    if pods.allowed(service, port) then
        local failing = {}
        for _, pod in ipairs(service.pods) do
            if pod.state == "active" and pod.weight > 0 then
                local list = pods.is_down(pod.address, port) and failing or found
                list[#list + 1] = pod
            end
        end
        if #found == 0 then
            found = failing
        end
    end
    service.choices[port] = found
    return found
end

return pods
