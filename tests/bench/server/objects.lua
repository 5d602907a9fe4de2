-- Single objects: read, stored, copied, deleted.

local files, answers = require "files", require "answers"
local C, HEADERS, PARTS = files.C, files.HEADERS, files.PARTS
local status_of, read_attribute = files.status_of, files.read_attribute
local bucket_path, object_path, create, copy_range = files.bucket_path, files.object_path, files.create, files.copy_range
local locked, changed, join_parts, remove_upload, delete_file = files.locked, files.changed, files.join_parts,
  files.remove_upload, files.delete_file
local answer, refuse, escape, time_text, matches = answers.answer, answers.refuse, answers.escape, answers.time_text,
  answers.matches
local HEAD, NAMESPACE = answers.HEAD, answers.NAMESPACE
local KEPT = { ["content-type"] = "Content-Type", ["content-encoding"] = "Content-Encoding",
  ["content-disposition"] = "Content-Disposition", ["content-language"] = "Content-Language",
  ["cache-control"] = "Cache-Control" }

local function read_object(bucket, key)
  local path = object_path(bucket, key)
  local found = status_of(path)
  if not found or found.is_directory then
    return refuse(404, status_of(bucket_path(bucket)) and "NoSuchKey" or "NoSuchBucket")
  end
  local expected, unexpected = ngx.ctx.if_match, ngx.ctx.if_none_match
  if expected and not matches(expected, found.etag) then return refuse(412, "PreconditionFailed") end
  if unexpected and matches(unexpected, found.etag) then
    ngx.header.ETag = found.etag
    return ngx.exit(304)
  end
  -- nginx sends nothing of an empty file with status 200 where S3 refuses.
  if found.size == 0 and ngx.var.http_range then return refuse(416, "InvalidRange") end
  if ngx.req.get_method() == "GET" and read_attribute(path, PARTS) then join_parts(path) end
  ngx.ctx.etag = found.etag
  ngx.ctx.headers = read_attribute(path, HEADERS)
  -- nginx sends the file below its root that the URI now names, whatever bytes are in it.
  ngx.req.set_uri("/" .. bucket .. "/" .. key:gsub("/", "\1"), false, true)
end

local function add_headers()
  if not ngx.ctx.etag then return end
  ngx.header.ETag = ngx.ctx.etag
  for name, value in (ngx.ctx.headers or ""):gmatch "([^:\n]+): ([^\n]*)\n" do ngx.header[name] = value end
end

local function headers_text()
  local lines = {}
  for name, value in pairs(ngx.req.get_headers(0)) do
    name = name:lower()
    if type(value) == "table" then value = table.concat(value, ",") end
    if KEPT[name] then
      lines[#lines + 1] = KEPT[name] .. ": " .. value .. "\n"
    elseif name:sub(1, 11) == "x-amz-meta-" then
      lines[#lines + 1] = name .. ": " .. value .. "\n"
    end
  end
  return table.concat(lines)
end

-- Put a finished file in an object's place, if the request's conditions hold. Gives an error code or nil, and the ETag.
local function replace(bucket, key, file, headers)
  local path = object_path(bucket, key)
  if #headers > 0 then C.setxattr(file, HEADERS, headers, #headers, 0) end
  local expected, exclusive = ngx.ctx.if_match, ngx.ctx.if_none_match
  return locked(function()
    local found = status_of(path)
    if exclusive and found then return "exists" end
    if expected and not found then return "missing" end
    if expected and not matches(expected, found.etag) then return "changed" end
    local parts = found and read_attribute(path, PARTS)
    if C.rename(file, path) ~= 0 then return "no bucket" end
    if parts then remove_upload(parts:match "^%S+") end
    changed(bucket)
    return nil, status_of(path).etag
  end)
end

local REFUSALS = { exists = { 412, "PreconditionFailed" }, changed = { 412, "PreconditionFailed" },
  missing = { 404, "NoSuchKey" }, ["no bucket"] = { 404, "NoSuchBucket" } }

local function refuse_replacing(file, why)
  C.unlink(file)
  return refuse(REFUSALS[why][1], REFUSALS[why][2])
end

-- The request's body as a file. Nobody here undoes the chunks of AWS, which no client sends without TLS.
local function received()
  ngx.req.read_body()
  return ngx.req.get_body_file() or create()
end

local function source_of_copy()
  local bucket, key = ngx.unescape_uri((ngx.var.http_x_amz_copy_source:gsub("%?.*$", ""):gsub("%+", "%%2B"))):match "^/?([^/]+)/(.+)$"
  local path = object_path(bucket, key)
  local found = status_of(path)
  if found and read_attribute(path, PARTS) then
    join_parts(path)
    found = status_of(path)
  end
  local expected = ngx.var.http_x_amz_copy_source_if_match
  if found and expected and not matches(expected, found.etag) then return path, nil, true end
  return path, found, false
end

local function put_object(bucket, key)
  local file, headers = received(), headers_text()
  local copied = ngx.var.http_x_amz_copy_source
  if copied then
    local path, found, mismatch = source_of_copy()
    if not found then
      C.unlink(file)
      return refuse(mismatch and 412 or 404, mismatch and "PreconditionFailed" or "NoSuchKey")
    end
    copy_range(path, 0, found.size, file, 0)
    if (ngx.var.http_x_amz_metadata_directive or "COPY") ~= "REPLACE" then headers = read_attribute(path, HEADERS) or "" end
  end
  local why, etag = replace(bucket, key, file, headers)
  if why then return refuse_replacing(file, why) end
  ngx.header.ETag = etag
  if copied then
    return answer(200, HEAD .. "<CopyObjectResult" .. NAMESPACE .. "><LastModified>"
      .. time_text(status_of(object_path(bucket, key))) .. "</LastModified><ETag>" .. escape(etag) .. "</ETag></CopyObjectResult>")
  end
  return answer(200)
end

local function delete_object(bucket, key)
  local expected = ngx.ctx.if_match
  if expected then
    local found = status_of(object_path(bucket, key))
    if not found or not matches(expected, found.etag) then return refuse(412, "PreconditionFailed") end
  end
  delete_file(bucket, key)
  return answer(204)
end

local ENTITIES = { amp = "&", lt = "<", gt = ">", quot = '"', apos = "'" }
local function body_text()
  ngx.req.read_body()
  local file = ngx.req.get_body_file()
  if not file then return ngx.req.get_body_data() or "" end
  local handle = io.open(file)
  local text = handle:read "*a"
  handle:close()
  C.unlink(file)
  return text
end

local function delete_objects(bucket)
  local deleted = {}
  for key in body_text():gmatch "<Key>(.-)</Key>" do
    key = key:gsub("&#(%d+);", function(code) return string.char(tonumber(code)) end):gsub("&(%a+);", ENTITIES)
    delete_file(bucket, key)
    deleted[#deleted + 1] = "<Deleted><Key>" .. escape(key) .. "</Key></Deleted>"
  end
  return answer(200, HEAD .. "<DeleteResult" .. NAMESPACE .. ">" .. table.concat(deleted) .. "</DeleteResult>")
end

return {
  read_object = read_object, add_headers = add_headers, put_object = put_object, delete_object = delete_object,
  delete_objects = delete_objects, headers_text = headers_text, received = received, replace = replace,
  refuse_replacing = refuse_replacing, source_of_copy = source_of_copy, body_text = body_text,
}
