-- SPDX-License-Identifier: Apache-2.0
-- The control socket: PUT /pods by the feeder, GET /state and GET /pods by people and by the role.
local cjson = require("cjson.safe")
local config = require("qnet.config")
local pods = require("qnet.pods")

local control = {}

local function put_pods()
    ngx.req.read_body()
    local version, fault = pods.put(ngx.req.get_body_data() or "")
    if not version then
        ngx.status = 400
        ngx.say(fault)
        return
    end
    ngx.say(version)
end

function control.serve()
    local question = ngx.req.get_method() .. " " .. ngx.var.uri
    if question == "PUT /pods" then
        return put_pods()
    elseif question == "GET /state" then
        ngx.header["Content-Type"] = "application/json"
        local shared = ngx.shared.qnet_pods
        ngx.say(cjson.encode({
            release = config.release,
            worker = ngx.worker.pid(),
            version = shared:get("version") or 0,
            known = shared:get("pods") ~= nil,
        }))
    elseif question == "GET /pods" then
        ngx.header["Content-Type"] = "application/json"
        ngx.say(ngx.shared.qnet_pods:get("pods") or "null")
    else
        ngx.status = 404
    end
end

return control
