-- SPDX-License-Identifier: Apache-2.0
-- One request: which pod answers it. admit() in the access phase, pick() in the balancer phase for each try.
local balancer = require("ngx.balancer")
local config = require("qnet.config")
local health = require("qnet.health")
local methods = require("qnet.methods")
local pods = require("qnet.pods")

local choose = {}
local busy = {} -- by service, then by pod: requests under way in this worker

local function refuse(status, text)
    ngx.status = status
    ngx.header["Content-Type"] = "text/plain"
    ngx.say(text)
    return ngx.exit(status)
end

local function segment(number)
    local count = 0
    for part in string.gmatch(ngx.var.request_uri:gsub("[?#].*", ""), "[^/]+") do
        count = count + 1
        if count == number then
            return ngx.unescape_uri(part)
        end
    end
end

-- The pod that a request names in one of the ways of `naming`; only header, cookie and argument when `explicit`.
local function named(naming, explicit)
    local function given(value)
        return value and value ~= "" and value or nil
    end
    return (naming.header and given(ngx.var["http_" .. naming.header:lower():gsub("-", "_")]))
        or (naming.cookie and given(ngx.var["cookie_" .. naming.cookie]))
        or (naming.argument and given(ngx.var["arg_" .. naming.argument]))
        or (not explicit and naming.path_segment and given(segment(naming.path_segment)))
end

-- The pod of a route with a name (agents-1 or fop/agents-1) or a number; with its upstream.
local function find(route, name)
    for _, backend in ipairs(route.backends) do
        local service = pods.service(backend.service)
        if service then
            local pod = service.by_name[name] or service.by_index[tonumber(name) or -1]
            if not pod then
                local group, rest = name:match("^([^/]+)/([^/]+)$")
                if group and service.name:sub(1, #group + 1) == group .. "/" then
                    pod = service.by_name[rest]
                end
            end
            if pod then
                return pod, backend, service
            end
        end
    end
end

local function admit_named(route)
    local name = named(route.naming)
    if not name then
        if route.naming.required then
            return refuse(400, "this route needs the name of a pod")
        end
        return
    end
    local pod, backend, service = find(route, name)
    if not pod then
        return refuse(404, "no pod of this route has the name or number that was given")
    end
    if not pods.allowed(service, backend.port) then
        return refuse(403, "the pods of " .. service.name .. " are not exported to this balancer")
    end
    ngx.ctx.qnet_pod = pod
    if #route.backends > 1 then
        ngx.var.qnet_backend = backend.upstream
    end
end

-- Whether a route that chooses among pods has any to choose; the balancer phase could only say 500.
local function has_pods(route)
    for _, backend in ipairs(route.backends) do
        local service = pods.service(backend.service)
        if service and #pods.choices(service, backend.port) > 0 then
            return true
        end
    end
end

function choose.admit(key)
    local route = config.routes[key]
    if route.naming then
        admit_named(route)
    end
    if route.method ~= "service_ip" and not has_pods(route) and not (route.naming and ngx.ctx.qnet_pod) then
        return refuse(503, "no pod of this route can be asked")
    end
    if route.naming then
        return
    end
    for _, naming in ipairs(config.listeners[route.listener] or {}) do
        if named(naming, true) then
            return refuse(400, "this route does not let a request name a pod")
        end
    end
end

-- The pod that the cookie of a sticky route names, as long as it may still be used. Draining pods keep their clients.
local function kept(route, service, port)
    local pod = route.sticky and service.by_id[ngx.var["cookie_" .. route.sticky.cookie] or ""]
    if pod and pods.allowed(service, port) and not pods.is_down(pod.address, port) then
        return pod
    end
end

local function key_of(route)
    if route.method == "client_hash" then
        return ngx.var.binary_remote_addr
    end
    return route.keyed and ngx.var.qnet_key or ngx.var.request_uri
end

-- What a method remembers lives as long as the set of pods does.
local function select_pod(target, service, tried)
    local list = pods.choices(service, target.port)
    if #list == 0 then
        return nil
    end
    if list ~= target.list then
        target.list, target.state = list, {}
    end
    local method = methods[target.route.method]
    local key = method == methods.hash and key_of(target.route) or nil
    -- When all were tried, the last one is as good as any; what it answers is the answer.
    return method(list, target.state, tried, key, busy[service.name]) or list[1]
end

-- A pod has one request less; its name is in the variable, since ngx.ctx does not survive an error's page.
local function less(service)
    local pods_of, name = busy[service], ngx.var.qnet_pod
    if pods_of and pods_of[name] then
        pods_of[name] = pods_of[name] > 1 and pods_of[name] - 1 or nil
    end
end

local function more(service, pod)
    busy[service] = busy[service] or {}
    busy[service][pod.name] = (busy[service][pod.name] or 0) + 1
end

-- A request of a route with least_connections is over: called in the log phase.
function choose.done(key)
    local target = config.target(key)
    if target then
        less(target.service)
    end
end

-- What was tried before, address -> true, from what nginx notes for the log; counts the last one as failed.
local function tried_before(route, port)
    local tried, last = {}, nil
    for address in ngx.var.upstream_addr:gmatch("([%x.:%[%]]+):%d+") do
        last = address:gsub("[%[%]]", "")
        tried[last] = true
    end
    health.failed(route, last, port)
    return tried
end

local NOTHING = {}

-- In the way of every request that is balanced among pods: a request that is tried once needs no table of its own.
function choose.pick(upstream)
    local target = config.upstreams[upstream]
    local route, port, service = target.route, target.port, pods.service(target.service)
    local tried, pod = NOTHING, nil
    if balancer.get_last_failure() then
        tried = tried_before(route, port)
    end
    if service then
        if route.naming then
            pod = ngx.ctx.qnet_pod -- named: this one or none
        end
        if not pod and route.sticky and tried == NOTHING then
            pod = kept(route, service, port)
        end
        if not pod then
            pod = select_pod(target, service, tried)
        end
    end
    if not pod then
        ngx.log(ngx.WARN, "route ", route.key, ": no pod of ", target.service, " can be asked")
        return ngx.exit(503)
    end
    if route.sticky then
        ngx.ctx.qnet_used = pod
    end
    if route.method == "least_connections" then
        less(target.service)
        more(target.service, pod)
    end
    ngx.var.qnet_pod = pod.name
    target.picked[pod.name] = (target.picked[pod.name] or 0) + 1
    local ok, fault = balancer.set_current_peer(pod.peer, port)
    if not ok then
        ngx.log(ngx.ERR, "route ", route.key, ": ", pod.name, " at ", pod.address, ": ", fault)
        return ngx.exit(502)
    end
end

-- The cookie of a sticky route, when the client has none of the pod that answered.
function choose.stick(key)
    local sticky, pod = config.routes[key].sticky, ngx.ctx.qnet_used
    if not pod or ngx.ctx.qnet_pod or ngx.var["cookie_" .. sticky.cookie] == pod.id then
        return
    end
    local cookie = sticky.cookie .. "=" .. pod.id .. "; Path=" .. (sticky.path or "/") .. "; HttpOnly"
    if sticky.lifetime_seconds then
        cookie = cookie .. "; Max-Age=" .. sticky.lifetime_seconds
    end
    if sticky.secure then
        cookie = cookie .. "; Secure"
    end
    if sticky.same_site then
        cookie = cookie .. "; SameSite=" .. sticky.same_site
    end
    local before = ngx.header["Set-Cookie"]
    if type(before) == "table" then
        before[#before + 1] = cookie
        ngx.header["Set-Cookie"] = before
    else
        ngx.header["Set-Cookie"] = before and { before, cookie } or cookie
    end
end

return choose
