-- SPDX-License-Identifier: Apache-2.0
-- Pods that fail: noticed by requests (passive) and by checks of our own (active). A pod that is out is a key in the
-- shared dictionary; every change of one makes the workers look again.
local config = require("qnet.config")
local pods = require("qnet.pods")

local health = {}
local shared = ngx.shared.qnet_health

local function check_of(route)
    return route.health_check or {}
end

-- A request to a pod failed.
function health.failed(route, address, port)
    local check = check_of(route)
    local most = check.passive_failures or 1
    if most == 0 or not address then
        return
    end
    local seconds = check.passive_seconds or 10
    local name = address .. ":" .. port
    local count = shared:incr("failures:" .. name, 1, 0, seconds)
    if count and count >= most and shared:add("down:" .. name, "requests", seconds) then
        shared:set("until:" .. name, ngx.now() + seconds)
        pods.touch()
    end
end

-- Pods that were out for a time are in again: the workers have to be told.
function health.expire()
    local touched = false
    for _, key in ipairs(shared:get_keys(0)) do
        if key:sub(1, 6) == "until:" and shared:get(key) <= ngx.now() then
            shared:delete(key)
            local down = "down:" .. key:sub(7)
            if shared:get(down) == "requests" then -- it may be there for another moment, and nobody would look again
                shared:delete(down)
            end
            touched = true
        end
    end
    if touched then
        pods.touch()
    end
end

local function tcp(pod, port, check)
    local socket = ngx.socket.tcp()
    socket:settimeout(check.timeout_milliseconds or 1000)
    local ok = socket:connect(pod.peer, port)
    socket:close()
    return ok
end

local function http(pod, port, check)
    local socket = ngx.socket.tcp()
    socket:settimeout(check.timeout_milliseconds or 1000)
    local status
    if socket:connect(pod.peer, port) then
        local head = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: qnet-l7\r\nConnection: close\r\n\r\n"
        if socket:send(head:format(check.path or "/", pod.name)) then
            status = tonumber((socket:receive("*l") or ""):match("^HTTP/%S+ (%d+)"))
        end
    end
    socket:close()
    if not status then
        return false
    end
    for _, good in ipairs(check.statuses or {}) do
        if status == good then
            return true
        end
    end
    return not check.statuses and status >= 200 and status < 400
end

local function judge(pod, port, check, ok)
    local name = pod.address .. ":" .. port
    local run = "run:" .. name
    local count = shared:get(run) or 0 -- successes in a row, or failures in a row as a negative number
    count = ok and math.max(count, 0) + 1 or math.min(count, 0) - 1
    shared:set(run, count)
    if ok and count >= (check.rise or 1) and shared:get("down:" .. name) == "checks" then
        shared:delete("down:" .. name)
        pods.touch()
    elseif not ok and -count >= (check.fall or 2) and shared:get("down:" .. name) ~= "checks" then
        shared:set("down:" .. name, "checks")
        pods.touch()
    end
end

local function check_pod(premature, pod, port, check)
    if not premature then
        judge(pod, port, check, (check.kind == "http" and http or tcp)(pod, port, check))
    end
end

-- Check every pod of a route once, all at the same time.
function health.check(route)
    for _, backend in ipairs(route.backends) do
        local service = pods.service(backend.service)
        for _, pod in ipairs(service and service.pods or {}) do
            if pods.allowed(service, backend.port) then
                ngx.timer.at(0, check_pod, pod, backend.port, route.health_check)
            end
        end
    end
end

-- Begin to check: in one worker only.
function health.start()
    ngx.timer.every(0.25, function(premature)
        if not premature then
            health.expire()
        end
    end)
    for _, route in pairs(config.routes) do
        if route.health_check and route.health_check.kind then
            ngx.timer.every((route.health_check.interval_milliseconds or 1000) / 1000, function(premature)
                if not premature then
                    health.check(route)
                end
            end)
        end
    end
end

return health
