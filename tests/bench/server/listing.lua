-- Listings of a bucket, both versions of the request. The sorted names and the text of each entry are kept in each nginx
-- process until the bucket's directory changes.

local files, answers = require "files", require "answers"
local status_of, bucket_path, object_path, names_in, changes = files.status_of, files.bucket_path, files.object_path,
  files.names_in, files.changes
local answer, refuse, escape, url_encode, time_text = answers.answer, answers.refuse, answers.escape, answers.url_encode,
  answers.time_text
local HEAD, NAMESPACE = answers.HEAD, answers.NAMESPACE
local indexes = {}

local function index_of(bucket)
  local path = bucket_path(bucket)
  local found = status_of(path)
  if not found then return nil end
  local state = found.etag .. changes(bucket)
  local index = indexes[bucket]
  if not index or index.state ~= state then
    local keys = names_in(path)
    for i = 1, #keys do keys[i] = keys[i]:gsub("\1", "/") end
    table.sort(keys)
    index = { state = state, keys = keys, plain = {}, url = {} }
    indexes[bucket] = index
  end
  return index
end

-- The position of the first key that is not below `wanted`.
local function position(keys, wanted, from)
  local low, high = from or 1, #keys + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if keys[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low
end

local function entry_of(bucket, index, at, encoding)
  local known = index[encoding]
  local text = known[at]
  if text == nil then
    local key = index.keys[at]
    local found = status_of(object_path(bucket, key))
    text = found and table.concat { "<Contents><Key>", encoding == "url" and url_encode(key) or escape(key),
      "</Key><LastModified>", time_text(found), "</LastModified><ETag>&quot;", found.etag:sub(2, -2), "&quot;</ETag><Size>",
      string.format("%d", found.size), "</Size><StorageClass>STANDARD</StorageClass></Contents>" } or false
    known[at] = text
  end
  return text
end

local function list(bucket, args)
  local index = index_of(bucket)
  if not index then return refuse(404, "NoSuchBucket") end
  local second = args["list-type"] == "2"
  local prefix, delimiter = args.prefix or "", args.delimiter or ""
  if delimiter == true then delimiter = "" end
  if prefix == true then prefix = "" end
  local encoding = args["encoding-type"] == "url" and "url" or "plain"
  local shown = encoding == "url" and url_encode or escape
  local most = math.min(tonumber(args["max-keys"]) or 1000, 1000)
  local after = args["start-after"] or args.marker
  local token = args["continuation-token"]
  if type(token) == "string" then after = token:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end) end
  if type(after) ~= "string" or after == "" then after = nil end
  -- Version 1 goes on after a directory by its name.
  if after and not second and delimiter ~= "" and after:sub(-#delimiter) == delimiter then after = after .. "\255" end

  local keys = index.keys
  local at = position(keys, prefix)
  if after then
    at = position(keys, after, at)
    if keys[at] == after then at = at + 1 end
  end
  local contents, directories, last, count = {}, {}, nil, 0
  while at <= #keys and count < most do
    local key = keys[at]
    if key:sub(1, #prefix) ~= prefix then break end
    local found = delimiter ~= "" and key:find(delimiter, #prefix + 1, true)
    if found then
      local directory = key:sub(1, found + #delimiter - 1)
      directories[#directories + 1] = "<CommonPrefixes><Prefix>" .. shown(directory) .. "</Prefix></CommonPrefixes>"
      last, count = directory .. "\255", count + 1
      at = position(keys, last, at)
    else
      local text = entry_of(bucket, index, at, encoding)
      if text then
        contents[#contents + 1] = text
        count = count + 1
      end
      last, at = key, at + 1
    end
  end
  local truncated = last ~= nil and at <= #keys and keys[at]:sub(1, #prefix) == prefix
  local page = { HEAD, "<ListBucketResult", NAMESPACE, "><Name>", bucket, "</Name><Prefix>", shown(prefix), "</Prefix>" }
  local function add(name, value) page[#page + 1] = "<" .. name .. ">" .. value .. "</" .. name .. ">" end
  add("MaxKeys", most)
  add("IsTruncated", truncated and "true" or "false")
  if delimiter ~= "" then add("Delimiter", shown(delimiter)) end
  if encoding == "url" then add("EncodingType", "url") end
  if second then add("KeyCount", count) end
  if truncated and second then
    add("NextContinuationToken", (last:gsub(".", function(char) return string.format("%02x", char:byte()) end)))
  elseif truncated then
    add("NextMarker", shown((last:gsub("\255$", ""))))
  end
  page[#page + 1] = table.concat(contents)
  page[#page + 1] = table.concat(directories)
  page[#page + 1] = "</ListBucketResult>"
  return answer(200, table.concat(page))
end

return { list = list }
