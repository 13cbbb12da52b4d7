-- SPDX-License-Identifier: Apache-2.0
-- Counters by route and service, in the text format of Prometheus. Workers count for themselves and add up once a second.
local choose = require("qnet.choose")
local config = require("qnet.config")
local pods = require("qnet.pods")

local metrics = {}
local shared = ngx.shared.qnet_metrics
local BUCKETS = { 0.005, 0.025, 0.1, 0.5, 2.5, 10 }
local counts, seconds, bytes, buckets = {}, {}, {}, {}

local function add(list, key, amount)
    list[key] = (list[key] or 0) + amount
end

function metrics.log()
    local variables = ngx.var
    local listener = variables.qnet_listener
    if not listener or listener == "" then
        return
    end
    choose.done(ngx.ctx)
    local upstream = config.upstreams[variables.qnet_backend]
    local name = listener .. "|" .. variables.qnet_route .. "|" .. (upstream and upstream.service or "")
    local took = tonumber(variables.request_time)
    add(counts, name .. "|" .. ngx.status, 1)
    add(seconds, name, took)
    add(bytes, name, tonumber(variables.bytes_sent))
    for position, limit in ipairs(BUCKETS) do
        if took <= limit then
            add(buckets, name .. "|" .. position, 1)
            break
        end
    end
end

local function flush(prefix, list)
    for key, amount in pairs(list) do
        shared:incr(prefix .. key, amount, 0)
        list[key] = nil
    end
end

function metrics.flush()
    flush("c|", counts)
    flush("s|", seconds)
    flush("b|", bytes)
    flush("h|", buckets)
end

function metrics.start()
    ngx.timer.every(1, metrics.flush)
end

local function labels(listener, route, service)
    return ('listener="%s",route="%s",service="%s"'):format(listener, route:match("/(.*)") or "", service)
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
            if key:sub(1, 2) == prefix then
                return shared:get(key), key:sub(3):match(pattern)
            end
        end
    end
end

local ROUTE = "^([^|]*)|([^|]*)|([^|]*)"

local function serve_durations()
    local title = "qnet_l7_request_duration_seconds"
    lines(title, "histogram", "Time from the first byte of a request to the last byte of its answer.")
    local within, total = {}, {}
    for amount, key, position in each("h|", "^(.*)|(%d+)$") do
        within[key] = within[key] or {}
        within[key][tonumber(position)] = amount
    end
    for amount, key in each("c|", "^(.*)|%d+$") do
        total[key] = (total[key] or 0) + amount
    end
    for sum, key in each("s|", "^(.*)$") do
        local listener, route, service = key:match(ROUTE)
        local shown, below = labels(listener, route, service), 0
        for position, limit in ipairs(BUCKETS) do
            below = below + ((within[key] or {})[position] or 0)
            ngx.say(title, "_bucket{", shown, ',le="', limit, '"} ', below)
        end
        ngx.say(title, "_bucket{", shown, ',le="+Inf"} ', total[key] or 0)
        ngx.say(title, "_sum{", shown, "} ", ("%.3f"):format(sum))
        ngx.say(title, "_count{", shown, "} ", total[key] or 0)
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
                local shown = 'qnet_l7_pods{service="%s",port="%d",state="%s"} %d'
                ngx.say(shown:format(upstream.service, upstream.port, state, number))
            end
        end
    end
end

function metrics.serve()
    metrics.flush()
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    lines("qnet_l7_requests_total", "counter", "Requests that were answered.")
    for amount, listener, route, service, status in each("c|", ROUTE .. "|(%d+)$") do
        ngx.say("qnet_l7_requests_total{", labels(listener, route, service), ',status="', status, '"} ', amount)
    end
    lines("qnet_l7_sent_bytes_total", "counter", "Bytes sent to clients.")
    for amount, listener, route, service in each("b|", ROUTE .. "$") do
        ngx.say("qnet_l7_sent_bytes_total{", labels(listener, route, service), "} ", amount)
    end
    serve_durations()
    serve_pods()
end

return metrics
