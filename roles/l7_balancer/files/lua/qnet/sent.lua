-- SPDX-License-Identifier: Apache-2.0
-- How many bytes the client of this request has been sent, as $bytes_sent says it. Asking for a variable by its name, which
-- nginx writes as text and we read as a number, costs 1,200 of a request's 35,000 instructions. So the number is taken from
-- where the variable takes it. Should an nginx keep it elsewhere than the one of Debian 12 (1.22), the first requests of a
-- worker show it, since both ways are compared in them, and it is the variable from there on.
local ffi = require("ffi")
local get_request = require("resty.core.base").get_request

local COMPARED = 100 -- requests of a worker

ffi.cdef([[
    struct qnet_connection { /* ngx_connection_s, src/core/ngx_connection.h */
        void *data, *read, *write;
        int fd;
        void *recv, *send, *recv_chain, *send_chain, *listening;
        int64_t sent;
    };
    struct qnet_request { /* ngx_http_request_s, src/http/ngx_http_request.h */
        uint32_t signature;
        struct qnet_connection *connection;
    };
]])
local request_pointer = ffi.typeof("struct qnet_request *")
local SIGNATURE = 0x50545448 -- "HTTP"

local sent = { trusted = true }
local compared = 0

local function by_name()
    return tonumber(ngx.var.bytes_sent)
end

local function both()
    local request, bytes = ffi.cast(request_pointer, get_request()), by_name()
    if request.signature ~= SIGNATURE or tonumber(request.connection.sent) ~= bytes then
        sent.trusted = false
        ngx.log(ngx.WARN, "this nginx keeps the bytes it has sent elsewhere: the variable is asked, which is slower")
    end
    compared = compared + 1
    return bytes
end

function sent.bytes()
    if compared < COMPARED and sent.trusted then
        return both()
    end
    if sent.trusted then
        return tonumber(ffi.cast(request_pointer, get_request()).connection.sent)
    end
    return by_name()
end

return sent
