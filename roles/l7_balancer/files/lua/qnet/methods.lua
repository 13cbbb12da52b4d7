-- SPDX-License-Identifier: Apache-2.0
-- Ways to choose one of several pods. Each gets the pods, a state of its own that lives as long as the set of pods does,
-- what was tried already (address -> true), and a key.
local bit = require("bit")

local band, bxor, lshift, rshift, tobit = bit.band, bit.bxor, bit.lshift, bit.rshift, bit.tobit
local crc32 = ngx.crc32_long
local log, random = math.log, math.random

local methods = {}

local function first_untried(list, tried, start)
    for step = 0, #list - 1 do
        local pod = list[(start + step - 1) % #list + 1]
        if not tried[pod.address] then
            return pod
        end
    end
end

function methods.round_robin(list, state, tried)
    -- Workers and sets of pods begin at different places, or the first pod would get more than its share.
    state.last = (state.last or random(0, 65535)) % #list + 1
    return first_untried(list, tried, state.last)
end

-- Smooth: a pod of weight 3 beside one of 1 gives a a b a, not a a a b.
function methods.weighted(list, state, tried)
    state.current = state.current or {}
    local current, total, best = state.current, 0, nil
    for _, pod in ipairs(list) do
        if not tried[pod.address] then
            current[pod.address] = (current[pod.address] or 0) + pod.weight
            total = total + pod.weight
            if not best or current[pod.address] > current[best.address] then
                best = pod
            end
        end
    end
    if best then
        current[best.address] = current[best.address] - total
    end
    return best
end

-- Requests under way in this worker, in relation to the weight; equals in turn.
function methods.least_connections(list, state, tried, _, busy)
    state.last = (state.last or random(0, 65535)) % #list + 1
    local best, least
    for step = 0, #list - 1 do
        local pod = list[(state.last + step - 1) % #list + 1]
        if not tried[pod.address] then
            local load = (busy and busy[pod.name] or 0) / pod.weight
            if not best or load < least then
                best, least = pod, load
            end
        end
    end
    return best
end

-- The low 32 bits of a product.
local function multiply(a, b)
    return tobit(band(a, 0xffff) * b + lshift(band(rshift(a, 16) * b, 0xffff), 16))
end

-- Spreads 32 bits over all of them (the finalizer of MurmurHash3): a CRC is linear, and the CRCs of one key for two pods
-- would differ by the same bits whatever the key.
local function spread(number)
    number = bxor(number, rshift(number, 16))
    number = multiply(number, 0x85ebca6b)
    number = bxor(number, rshift(number, 13))
    number = multiply(number, 0xc2b2ae35)
    return bxor(number, rshift(number, 16))
end

-- Highest random weight: a pod that comes or goes moves only its own keys.
function methods.hash(list, _, tried, key)
    local best, highest
    local of_key = spread(tobit(crc32(key)))
    for _, pod in ipairs(list) do
        if not tried[pod.address] then
            pod.hash = pod.hash or spread(tobit(crc32(pod.name)))
            local chance = (spread(bxor(of_key, pod.hash)) % 4294967296 + 1) / 4294967297
            local score = -pod.weight / log(chance)
            if not best or score > highest then
                best, highest = pod, score
            end
        end
    end
    return best
end

methods.client_hash = methods.hash

return methods
