-- Wireshark dissector for the plain frames of Obscura (docs/protocol.md): what travels on links with carrier=bare, the only ones
-- without encryption. On every other link there is nothing to dissect, and that is the point of the project.
--
-- Use:  tshark -X lua_script:obscura.lua -d tcp.port==19733,obscura -r file.pcap
-- or put it into Wireshark's plugin folder and set the port under Preferences, Protocols, Obscura. It claims no port and guesses at
-- no stream by itself. The checksum (SHA-256 twice, first 4 bytes) is shown, not verified: Lua in Wireshark has no SHA-256.
-- Of an empty payload it is known, and a wrong one is marked.

local obscura = Proto("obscura", "Obscura P2P")

local HEADER = 20
local MAX_UNKNOWN = 4194304
local EMPTY_CHECKSUM = 0x5df6e0e2

-- Type name -> what it is, and the largest payload in bytes.
local TYPES = {
    version = {"Version", 1024}, verack = {"Version acknowledgment", 0}, padneg = {"Padding negotiation", 1024},
    resume = {"Session moves here", 48}, resumed = {"Session moved here", 48}, rotate = {"Rotation asked for", 0},
    ping = {"Liveness check", 8}, pong = {"Liveness answer", 8},
    addr = {"Addresses of peers", 565003}, getaddr = {"Addresses asked for", 0},
    inv = {"Announcement", 1800003}, getdata = {"Data asked for", 1800003}, notfound = {"Not found", 1800003},
    getblocks = {"Block ids asked for", 3269}, getheaders = {"Headers asked for", 3269}, headers = {"Headers", 162003},
    block = {"Block", 4000000}, tx = {"Transaction", 4000000}, stemtx = {"Transaction, stem phase", 100000},
    mempool = {"Mempool asked for", 0}, sendcmpct = {"Compact blocks", 9}, cmpctblock = {"Compact block", 4000000},
    getblocktxn = {"Block transactions asked for", 196645}, blocktxn = {"Block transactions", 4000000},
}
local KINDS = {[1] = "transaction", [2] = "block"}
local NETWORKS = {[1] = "IPv4", [2] = "IPv6", [4] = "Tor v3", [5] = "I2P", [6] = "CJDNS"}
local CARRIERS = {[0] = "plain", [1] = "http", [2] = "tls", [3] = "ssh", [4] = "dns"}

local f = {
    size = ProtoField.uint32("obscura.size", "Payload size"),
    type = ProtoField.string("obscura.type", "Type"),
    checksum = ProtoField.uint32("obscura.checksum", "Checksum", base.HEX),
    payload = ProtoField.bytes("obscura.payload", "Payload"),
    version = ProtoField.uint32("obscura.version", "Protocol version"),
    timestamp = ProtoField.uint64("obscura.timestamp", "Timestamp (unix seconds)"),
    features = ProtoField.uint32("obscura.features", "Features", base.HEX),
    privacy = ProtoField.uint32("obscura.privacy", "Privacy features", base.HEX),
    agent = ProtoField.string("obscura.user_agent", "User agent", base.UNICODE),
    best = ProtoField.bytes("obscura.best_block", "Best block"),
    height = ProtoField.uint64("obscura.height", "Best height"),
    nonce = ProtoField.uint64("obscura.nonce", "Nonce", base.HEX),
    extension = ProtoField.bytes("obscura.extension", "Extension"),
    count = ProtoField.uint32("obscura.count", "Count"),
    kind = ProtoField.uint32("obscura.inv.kind", "Kind", base.DEC, KINDS),
    hash = ProtoField.bytes("obscura.hash", "Hash"),
    time = ProtoField.uint32("obscura.addr.time", "Last seen (unix seconds)"),
    services = ProtoField.uint64("obscura.addr.services", "Services", base.HEX),
    network = ProtoField.uint8("obscura.addr.network", "Network", base.DEC, NETWORKS),
    host = ProtoField.bytes("obscura.addr.host", "Host"),
    port = ProtoField.uint16("obscura.addr.port", "Port"),
    carrier = ProtoField.uint8("obscura.addr.carrier", "Carrier", base.DEC, CARRIERS),
    key = ProtoField.bytes("obscura.addr.key", "Channel key"),
    header = ProtoField.bytes("obscura.header", "Header"),
    announce = ProtoField.bool("obscura.sendcmpct.announce", "Announces by compact blocks"),
    compact = ProtoField.uint64("obscura.sendcmpct.version", "Version"),
}
obscura.fields = f

local wrong = {
    type = ProtoExpert.new("obscura.bad_type", "No type of a frame", expert.group.MALFORMED, expert.severity.ERROR),
    size = ProtoExpert.new("obscura.bad_size", "Over the limit of its type", expert.group.MALFORMED, expert.severity.ERROR),
    body = ProtoExpert.new("obscura.bad_payload", "The payload does not follow its encoding", expert.group.MALFORMED,
        expert.severity.ERROR),
    checksum = ProtoExpert.new("obscura.bad_checksum", "Wrong checksum", expert.group.CHECKSUM, expert.severity.ERROR),
    unknown = ProtoExpert.new("obscura.unknown_type", "Of an extension", expert.group.UNDECODED, expert.severity.NOTE),
}
obscura.experts = {wrong.type, wrong.size, wrong.body, wrong.checksum, wrong.unknown}

obscura.prefs.port = Pref.uint("TCP port", 0, "The port of a listener with carrier=bare; 0 = none, use Decode As")

-- A reader over a payload; it raises an error at the end, which the caller turns into `bad_payload`.
local Reader = {}
Reader.__index = Reader

local function reader(range)
    return setmetatable({range = range, at = 0, left = range and range:len() or 0}, Reader)
end

function Reader:take(size)
    if size > self.left then error("short") end
    if size == 0 then return nil end
    local part = self.range:range(self.at, size)
    self.at, self.left = self.at + size, self.left - size
    return part
end

function Reader:compact()
    local first = self:take(1)
    local value = first:uint()
    if value < 0xfd then return value, first end
    local bytes = self:take(({[0xfd] = 2, [0xfe] = 4, [0xff] = 8})[value])
    if value == 0xff then return bytes:le_uint64():tonumber(), bytes end
    return bytes:le_uint(), bytes
end

function Reader:count(tree, most)
    local value, part = self:compact()
    tree:add(f.count, part, value)
    if value > most then error("count") end
    return value
end

local function hash(tree, read)
    local part = read:take(32)
    tree:add(f.hash, part)
    return part
end

local body = {}

function body.version(tree, read)
    tree:add_le(f.version, read:take(4))
    tree:add_le(f.timestamp, read:take(8))
    tree:add_le(f.features, read:take(4))
    tree:add_le(f.privacy, read:take(4))
    local size = read:take(2):le_uint()
    if size > 256 then error("agent") end
    if size > 0 then tree:add(f.agent, read:take(size)) end
    tree:add(f.best, read:take(32))
    tree:add_le(f.height, read:take(8))
    tree:add_le(f.nonce, read:take(8))
    while read.left > 0 do
        local head = read:take(2)
        local value = read:take(head:range(1, 1):uint())
        tree:add(f.extension, value or head)
    end
end

function body.ping(tree, read) tree:add_le(f.nonce, read:take(8)) end
body.pong = body.ping

function body.inv(tree, read)
    for _ = 1, read:count(tree, 50000) do
        local part = read:take(36)
        local item = tree:add(obscura, part, "Item")
        item:add_le(f.kind, part:range(0, 4))
        item:add(f.hash, part:range(4, 32))
    end
end
body.getdata, body.notfound = body.inv, body.inv

function body.addr(tree, read)
    for _ = 1, read:count(tree, 1000) do
        local item = tree:add(obscura, read.range:range(read.at), "Address")
        item:add_le(f.time, read:take(4))
        local services, part = read:compact()
        item:add(f.services, part, UInt64(services % 4294967296, math.floor(services / 4294967296)))
        item:add(f.network, read:take(1))
        local size = read:compact()
        if size > 512 then error("host") end
        local place = read:take(size)
        if place then item:add(f.host, place) end
        item:add(f.port, read:take(2))
        item:add(f.carrier, read:take(1))
        local key = read:take(1):uint()
        if key ~= 0 and key ~= 32 then error("key") end
        if key == 32 then item:add(f.key, read:take(32)) end
    end
end

function body.getheaders(tree, read)
    tree:add_le(f.version, read:take(4))
    for _ = 1, read:count(tree, 101) + 1 do hash(tree, read) end
end
body.getblocks = body.getheaders

function body.headers(tree, read)
    local count = read:count(tree, 2000)
    if count == 0 then return end
    local size = read.left / count
    if size ~= math.floor(size) or size < 2 then error("headers") end
    for _ = 1, count do
        tree:add(f.header, read:take(size - 1))
        if read:take(1):uint() ~= 0 then error("headers") end
    end
end

function body.sendcmpct(tree, read)
    tree:add(f.announce, read:take(1))
    tree:add_le(f.compact, read:take(8))
end

local function rest(tree, read)
    if read.left > 0 then tree:add(f.payload, read:take(read.left)) end
end

-- The type's name, or nil if other bytes than a-z and 0-9 with NULs behind are there.
local function type_of(range)
    return range:raw():match("^([a-z0-9]+)%z*$")
end

local function frame_length(buffer, pinfo, offset)
    local name = type_of(buffer:range(offset + 4, 12))
    local size = buffer:range(offset, 4):le_uint()
    local limit = name and (TYPES[name] and TYPES[name][2] or MAX_UNKNOWN) or 0
    if size > limit then return buffer:len() - offset end -- the link ends here: wait for nothing
    return HEADER + size
end

local function dissect_frame(buffer, pinfo, root)
    local size, name = buffer:range(0, 4):le_uint(), type_of(buffer:range(4, 12))
    local known = name and TYPES[name]
    local tree = root:add(obscura, buffer:range(), "Obscura, " .. (name or "not a frame"))
    pinfo.cols.protocol = "Obscura"
    pinfo.cols.info:append((name or "not a frame") .. " ")
    local size_item = tree:add_le(f.size, buffer:range(0, 4))
    local type_item = tree:add(f.type, buffer:range(4, 12), name or "")
    local checksum = tree:add(f.checksum, buffer:range(16, 4))
    if not name then
        type_item:add_proto_expert_info(wrong.type)
        return buffer:len()
    end
    if size > (known and known[2] or MAX_UNKNOWN) then
        size_item:add_proto_expert_info(wrong.size)
        return buffer:len()
    end
    if not known then type_item:add_proto_expert_info(wrong.unknown) else type_item:append_text(" (" .. known[1] .. ")") end
    if size == 0 then
        if buffer:range(16, 4):uint() ~= EMPTY_CHECKSUM then checksum:add_proto_expert_info(wrong.checksum) end
        return buffer:len()
    end
    local read = reader(buffer:range(HEADER, size))
    local decode = body[name]
    if not decode then
        rest(tree, read)
    elseif not pcall(decode, tree, read) or read.left > 0 then
        tree:add_proto_expert_info(wrong.body)
    end
    return buffer:len()
end

function obscura.dissector(buffer, pinfo, root)
    pinfo.cols.info = ""
    dissect_tcp_pdus(buffer, root, HEADER, frame_length, dissect_frame)
    return buffer:len()
end

local tcp = DissectorTable.get("tcp.port")
local port = 0

function obscura.prefs_changed()
    if port ~= 0 then tcp:remove(port, obscura) end
    port = obscura.prefs.port
    if port ~= 0 then tcp:add(port, obscura) end
end

tcp:add_for_decode_as(obscura)
