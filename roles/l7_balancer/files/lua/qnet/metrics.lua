-- SPDX-License-Identifier: Apache-2.0
-- Counters by route and service, in the text format of Prometheus. Workers count for themselves and add up once a second.
local config = require("qnet.config")
local pods = require("qnet.pods")
local sent = require("qnet.sent")

local metrics = {}
local shared = ngx.shared.qnet_metrics
local BUCKETS = { 0.005, 0.025, 0.1, 0.5, 2.5, 10 }
local counters = {}

-- The counters of a route and a service in this worker, by "listener/route|service".
local function counters_of(name)
    local own = { statuses = {}, buckets = {}, seconds = 0, bytes = 0 }
    counters[name] = own
    return own
end

-- In the way of every request: as little as possible, and no table for each.
function metrics.count(name)
    local own = counters[name] or counters_of(name)
    local status, took = ngx.status, ngx.now() - ngx.req.start_time()
    own.statuses[status] = (own.statuses[status] or 0) + 1
    own.seconds = own.seconds + took
    own.bytes = own.bytes + sent.bytes()
    for position = 1, #BUCKETS do
        if took <= BUCKETS[position] then
            own.buckets[position] = (own.buckets[position] or 0) + 1
            break
        end
    end
end

-- For routes whose service is looked up.
function metrics.log(key)
    local target = config.target(key)
    metrics.count(key .. "|" .. (target and target.service or ""))
end

function metrics.flush()
    for name, own in pairs(counters) do
        for status, amount in pairs(own.statuses) do
            shared:incr("c|" .. name .. "|" .. status, amount, 0)
        end
        for position, amount in pairs(own.buckets) do
            shared:incr("h|" .. name .. "|" .. position, amount, 0)
        end
        shared:incr("s|" .. name, own.seconds, 0)
        shared:incr("b|" .. name, own.bytes, 0)
    end
    counters = {}
    for _, upstream in pairs(config.upstreams) do
        for pod, amount in pairs(upstream.picked) do
            shared:incr("p|" .. upstream.route.key .. "|" .. upstream.service .. "|" .. pod, amount, 0)
        end
        upstream.picked = {}
    end
end

function metrics.start()
    ngx.timer.every(1, metrics.flush)
end

local function labels(key, service)
    local listener, route = key:match("^(.-)/(.*)$")
    local tenant = config.tenants[service] or ""
    return ('listener="%s",route="%s",service="%s",tenant="%s"'):format(listener, route, service, tenant)
end

local function lines(title, kind, help)
    ngx.say("# HELP ", title, " ", help)
    ngx.say("# TYPE ", title, " ", kind)
end

local function each(prefix, pattern)
    local keys, position = shared:get_keys(0), 0
    table.sort(keys)
    return function()
        while true do
            position = position + 1
            local key = keys[position]
            if not key then
                return nil
            end
            -- The dictionary outlives a reload: what another release has counted may be written otherwise.
            if key:sub(1, 2) == prefix and key:sub(3):match(pattern) then
                return shared:get(key), key:sub(3):match(pattern)
            end
        end
    end
end

local ROUTE_WHOLE = "^([^|]*/[^|]*|[^|]*)$"
local ROUTE = "^([^|]*/[^|]*)|([^|]*)"

local function serve_durations()
    local title = "qnet_l7_request_duration_seconds"
    lines(title, "histogram", "Time from the first byte of a request to the last byte of its answer.")
    local within, total = {}, {}
    for amount, key, position in each("h|", "^([^|]*/[^|]*|[^|]*)|(%d+)$") do
        within[key] = within[key] or {}
        within[key][tonumber(position)] = amount
    end
    for amount, key in each("c|", "^([^|]*/[^|]*|[^|]*)|%d+$") do
        total[key] = (total[key] or 0) + amount
    end
    for sum, key in each("s|", ROUTE_WHOLE) do
        local shown, below = labels(key:match(ROUTE)), 0
        for position, limit in ipairs(BUCKETS) do
            below = below + ((within[key] or {})[position] or 0)
            ngx.say(title, "_bucket{", shown, ',le="', limit, '"} ', below)
        end
        ngx.say(title, "_bucket{", shown, ',le="+Inf"} ', total[key] or 0)
        ngx.say(title, "_sum{", shown, "} ", ("%.3f"):format(sum))
        ngx.say(title, "_count{", shown, "} ", total[key] or 0)
    end
end

-- Pods that are gone are forgotten, or their number would grow for ever.
local function serve_tries()
    lines("qnet_l7_pod_tries_total", "counter", "Requests handed to a pod, each try counted, where pods are chosen.")
    for amount, route, service, pod in each("p|", "^([^|]*/[^|]*)|([^|]*)|([^|]*)$") do
        local known = pods.service(service)
        if known and known.by_name[pod] then
            ngx.say("qnet_l7_pod_tries_total{", labels(route, service), ',pod="', pod, '"} ', amount)
        else
            shared:delete("p|" .. route .. "|" .. service .. "|" .. pod)
        end
    end
end

local function serve_pods()
    lines("qnet_l7_pods", "gauge", "Pods that take requests (up) and that do not, by service and port.")
    local seen = {}
    for _, upstream in pairs(config.upstreams) do
        local key = upstream.service .. ":" .. upstream.port
        local service = pods.service(upstream.service)
        if service and not seen[key] and upstream.route.method ~= "service_ip" then
            seen[key] = true
            local up = #pods.choices(service, upstream.port)
            for state, number in pairs({ up = up, out = #service.pods - up }) do
                local shown = 'qnet_l7_pods{service="%s",tenant="%s",port="%d",state="%s"} %d'
                local tenant = config.tenants[upstream.service] or ""
                ngx.say(shown:format(upstream.service, tenant, upstream.port, state, number))
            end
        end
    end
end

function metrics.serve()
    metrics.flush()
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    lines("qnet_l7_requests_total", "counter", "Requests that were answered.")
    for amount, route, service, status in each("c|", ROUTE .. "|(%d+)$") do
        ngx.say("qnet_l7_requests_total{", labels(route, service), ',status="', status, '"} ', amount)
    end
    lines("qnet_l7_sent_bytes_total", "counter", "Bytes sent to clients.")
    for amount, route, service in each("b|", ROUTE .. "$") do
        ngx.say("qnet_l7_sent_bytes_total{", labels(route, service), "} ", amount)
    end
    serve_durations()
    serve_tries()
    serve_pods()
end

return metrics
