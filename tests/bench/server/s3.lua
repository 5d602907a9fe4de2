-- The protocol of S3 over a directory: one flat directory for each bucket, one file for each object.
--
-- nginx itself sends and receives the bytes (sendfile, temporary files that are renamed); this decides. All state is in
-- the file system: size and time are the file's, headers of the object are in one extended attribute, and the ETag is
-- made of time, inode and size. A listing's index is kept in each nginx process and made anew when the directory changed.
--
-- File names are keys with "/" as byte 1. A finished multipart upload is its first part's file, grown to the whole
-- size; the other parts stay where they are until somebody reads the object, so that finishing costs nothing.

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
struct bench_time { int64_t sec; uint32_t nsec; int32_t reserved; };
struct bench_statx {
  uint32_t mask, blksize; uint64_t attributes; uint32_t nlink, uid, gid; uint16_t mode, spare0;
  uint64_t ino, size, blocks, attributes_mask; struct bench_time atime, btime, ctime, mtime; uint64_t rest[16];
};
struct bench_dirent { uint64_t ino; int64_t off; unsigned short reclen; unsigned char type; char name[256]; };
int statx(int, const char *, int, unsigned int, struct bench_statx *);
int rename(const char *, const char *);
int unlink(const char *);
int rmdir(const char *);
int mkdir(const char *, unsigned int);
int open(const char *, int, ...);
int close(int);
int flock(int, int);
int truncate(const char *, int64_t);
ssize_t copy_file_range(int, int64_t *, int, int64_t *, size_t, unsigned int);
ssize_t getxattr(const char *, const char *, void *, size_t);
int setxattr(const char *, const char *, const void *, size_t, int);
int removexattr(const char *, const char *);
struct bench_timespec { long sec, nsec; };
int utimensat(int, const char *, const struct bench_timespec *, int);
void *opendir(const char *);
struct bench_dirent *readdir(void *);
int closedir(void *);
]]

local C = ffi.C
local O_RDONLY, O_WRONLY, O_CREAT = 0, 1, 64
local LOCK_EX, LOCK_UN = 2, 8
local AT_FDCWD, STATX_BASIC = -100, 0x7ff
local HEADERS, PARTS = "user.headers", "user.parts"
local KEPT = { ["content-type"] = "Content-Type", ["content-encoding"] = "Content-Encoding",
  ["content-disposition"] = "Content-Disposition", ["content-language"] = "Content-Language",
  ["cache-control"] = "Cache-Control" }

local M = {}
local root, lock_file, counters
local indexes = {}
local status_buffer = ffi.new "struct bench_statx"
local text_buffer = ffi.new("char[?]", 65536)
local number_of_files = 0

function M.start(directory)
  root = directory
  counters = ngx.shared.counters
end

-- Files ------------------------------------------------------------------------------------------------------------

local function status_of(path)
  if C.statx(AT_FDCWD, path, 0, STATX_BASIC, status_buffer) ~= 0 then return nil end
  local found = status_buffer
  local seconds, size = tonumber(found.mtime.sec), tonumber(found.size)
  return { size = size, seconds = seconds, nanoseconds = found.mtime.nsec, is_directory = bit.band(found.mode, 0xf000) == 0x4000,
    etag = string.format('"%08x%08x-%x-%x"', seconds, found.mtime.nsec, tonumber(found.ino), size) }
end

local function read_attribute(path, name)
  local length = C.getxattr(path, name, text_buffer, 65536)
  return length > 0 and ffi.string(text_buffer, length) or nil
end

local function bucket_path(bucket) return root .. "/buckets/" .. bucket end
local function object_path(bucket, key) return bucket_path(bucket) .. "/" .. key:gsub("/", "\1") end
local function upload_path(id) return root .. "/uploads/" .. id end

local function new_path()
  number_of_files = number_of_files + 1
  return string.format("%s/incoming/l%d-%d", root, ngx.worker.pid(), number_of_files)
end

-- Append `size` bytes of a file from `offset` on to another, which ends at `at`.
local function copy_range(source, offset, size, target, at)
  local from = C.open(source, O_RDONLY)
  local to = C.open(target, bit.bor(O_WRONLY, O_CREAT), ffi.cast("int", 384))
  local read_at, write_at = ffi.new("int64_t[1]", offset), ffi.new("int64_t[1]", at)
  local left = size
  while left > 0 do
    local moved = tonumber(C.copy_file_range(from, read_at, to, write_at, left, 0))
    if moved <= 0 then break end
    left = left - moved
  end
  C.close(from)
  C.close(to)
  return left == 0
end

local function names_in(path)
  local directory = C.opendir(path)
  if directory == nil then return nil end
  local names = {}
  while true do
    local entry = C.readdir(directory)
    if entry == nil then break end
    local name = ffi.string(entry.name)
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  C.closedir(directory)
  return names
end

local function remove_upload(id)
  local path = upload_path(id)
  for _, name in ipairs(names_in(path) or {}) do C.unlink(path .. "/" .. name) end
  C.rmdir(path)
end

local function locked(work, ...)
  lock_file = lock_file or C.open(root .. "/lock", bit.bor(O_WRONLY, O_CREAT), ffi.cast("int", 384))
  C.flock(lock_file, LOCK_EX)
  local ok, first, second = pcall(work, ...)
  C.flock(lock_file, LOCK_UN)
  if not ok then error(first) end
  return first, second
end

local function changed(bucket) counters:incr("changes:" .. bucket, 1, 0) end

-- A finished upload becomes one file when it is first read.
local function join_parts(path)
  locked(function()
    local parts = read_attribute(path, PARTS)
    if not parts then return end
    local id, at, numbers = parts:match "^(%S+) (%d+) ?(.*)$"
    at = tonumber(at)
    local before = status_of(path)
    for number in numbers:gmatch "%d+" do
      local part = upload_path(id) .. "/" .. number
      local size = status_of(part).size
      copy_range(part, 0, size, path, at)
      at = at + size
    end
    local time = { before.seconds, before.nanoseconds }
    C.utimensat(AT_FDCWD, path, ffi.new("struct bench_timespec[2]", { time, time }), 0)
    C.removexattr(path, PARTS)
    remove_upload(id)
  end)
end

-- Answers ----------------------------------------------------------------------------------------------------------

local function answer(status, body, content_type)
  ngx.status = status
  ngx.header["Content-Type"] = content_type or "application/xml"
  body = body or ""
  ngx.header["Content-Length"] = #body
  if ngx.req.get_method() ~= "HEAD" then ngx.print(body) else ngx.send_headers() end
  return ngx.exit(ngx.HTTP_OK)
end

local HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
local NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

local function refuse(status, code, message)
  return answer(status, HEAD .. "<Error><Code>" .. code .. "</Code><Message>" .. (message or code) .. "</Message></Error>")
end

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\r"] = "&#13;" }
local function escape(text) return (text:gsub("[&<>\r]", ESCAPES)) end
local function url_encode(text)
  return (text:gsub("[^%w%-%._~/]", function(char) return string.format("%%%02X", char:byte()) end))
end

local function time_text(found)
  return os.date("!%Y-%m-%dT%H:%M:%S.000Z", found.seconds)
end

-- Listings ---------------------------------------------------------------------------------------------------------

local function index_of(bucket)
  local path = bucket_path(bucket)
  local found = status_of(path)
  if not found then return nil end
  local state = found.etag .. (counters:get("changes:" .. bucket) or 0)
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

-- Objects ----------------------------------------------------------------------------------------------------------

local function matches(condition, etag)
  if condition == "*" then return true end
  for tag in condition:gmatch "[^,%s]+" do
    if tag:gsub('"', "") == etag:gsub('"', "") then return true end
  end
  return false
end

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

function M.add_headers()
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
  local file = ngx.req.get_body_file()
  if not file then
    file = new_path()
    C.close(C.open(file, bit.bor(O_WRONLY, O_CREAT), ffi.cast("int", 384)))
  end
  return file
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

local function delete_file(bucket, key)
  local path = object_path(bucket, key)
  locked(function()
    local parts = read_attribute(path, PARTS)
    if parts then remove_upload(parts:match "^%S+") end
    C.unlink(path)
    changed(bucket)
  end)
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

-- Uploads in parts -------------------------------------------------------------------------------------------------

local function create_upload(bucket, key)
  ngx.req.discard_body()
  local id = string.format("%d-%d-%d", ngx.worker.pid(), ngx.now() * 1000, number_of_files)
  number_of_files = number_of_files + 1
  C.mkdir(upload_path(id), 448)
  local headers = headers_text()
  if #headers > 0 then C.setxattr(upload_path(id), HEADERS, headers, #headers, 0) end
  return answer(200, HEAD .. "<InitiateMultipartUploadResult" .. NAMESPACE .. "><Bucket>" .. bucket .. "</Bucket><Key>"
    .. escape(key) .. "</Key><UploadId>" .. id .. "</UploadId></InitiateMultipartUploadResult>")
end

local function put_part(id, number)
  local file = received()
  local copied = ngx.var.http_x_amz_copy_source
  if copied then
    local path, found = source_of_copy()
    if not found then
      C.unlink(file)
      return refuse(404, "NoSuchKey")
    end
    local first, last = (ngx.var.http_x_amz_copy_source_range or ""):match "bytes=(%d+)%-(%d+)"
    first, last = tonumber(first or 0), tonumber(last or found.size - 1)
    copy_range(path, first, last - first + 1, file, 0)
  end
  local path = upload_path(id) .. "/" .. number
  if C.rename(file, path) ~= 0 then
    C.unlink(file)
    return refuse(404, "NoSuchUpload")
  end
  local etag = status_of(path).etag
  ngx.header.ETag = etag
  if copied then
    return answer(200, HEAD .. "<CopyPartResult" .. NAMESPACE .. "><ETag>" .. escape(etag) .. "</ETag></CopyPartResult>")
  end
  return answer(200)
end

local function complete_upload(bucket, key, id)
  local directory = upload_path(id)
  local body = body_text()
  if not status_of(directory) then return refuse(404, "NoSuchUpload") end
  local numbers, size, first_size = {}, 0, 0
  for part in body:gmatch "<Part>(.-)</Part>" do
    local number = part:match "<PartNumber>(%d+)</PartNumber>"
    local etag = part:match("<ETag>(.-)</ETag>"):gsub("&quot;", '"'):gsub("&#34;", '"')
    local found = status_of(directory .. "/" .. number)
    if not found or not matches(etag, found.etag) then return refuse(400, "InvalidPart") end
    if #numbers == 0 then first_size = found.size end
    numbers[#numbers + 1] = number
    size = size + found.size
  end
  if #numbers == 0 then return refuse(400, "MalformedXML") end
  local file = new_path()
  C.rename(directory .. "/" .. table.remove(numbers, 1), file)
  C.truncate(file, size)
  if #numbers > 0 then
    local parts = string.format("%s %d %s", id, first_size, table.concat(numbers, " "))
    C.setxattr(file, PARTS, parts, #parts, 0)
  end
  local why, etag = replace(bucket, key, file, read_attribute(directory, HEADERS) or "")
  if why or #numbers == 0 then remove_upload(id) end
  if why then return refuse_replacing(file, why) end
  return answer(200, HEAD .. "<CompleteMultipartUploadResult" .. NAMESPACE .. "><Bucket>" .. bucket .. "</Bucket><Key>"
    .. escape(key) .. "</Key><ETag>" .. escape(etag) .. "</ETag></CompleteMultipartUploadResult>")
end

-- Requests ---------------------------------------------------------------------------------------------------------

local function list_buckets()
  local text = {}
  for _, name in ipairs(names_in(root .. "/buckets")) do
    text[#text + 1] = "<Bucket><Name>" .. name .. "</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket>"
  end
  return answer(200, HEAD .. "<ListAllMyBucketsResult" .. NAMESPACE .. "><Buckets>" .. table.concat(text)
    .. "</Buckets></ListAllMyBucketsResult>")
end

local function handle_bucket(method, bucket, args)
  if method == "GET" and args.location then
    return answer(200, HEAD .. "<LocationConstraint" .. NAMESPACE .. "/>")
  elseif method == "GET" and args.versioning then
    return answer(200, HEAD .. "<VersioningConfiguration" .. NAMESPACE .. "/>")
  elseif method == "GET" and args.uploads then
    return answer(200, HEAD .. "<ListMultipartUploadsResult" .. NAMESPACE .. "><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
  elseif method == "GET" then
    ngx.ctx.kind = "list"
    return list(bucket, args)
  elseif method == "HEAD" then
    return answer(status_of(bucket_path(bucket)) and 200 or 404)
  elseif method == "PUT" then
    C.unlink(received())
    C.mkdir(bucket_path(bucket), 448)
    return answer(200)
  elseif method == "POST" and args.delete then
    return delete_objects(bucket)
  elseif method == "DELETE" then
    if not status_of(bucket_path(bucket)) then return refuse(404, "NoSuchBucket") end
    return C.rmdir(bucket_path(bucket)) == 0 and answer(204) or refuse(409, "BucketNotEmpty")
  end
  return refuse(501, "NotImplemented")
end

local function show_counters()
  local lines = {}
  for _, name in ipairs(counters:get_keys(0)) do lines[#lines + 1] = name .. " " .. counters:get(name) end
  return answer(200, table.concat(lines, "\n"), "text/plain")
end

function M.handle()
  -- nginx would compare with what the answer says, also when that is the answer to a PUT.
  ngx.ctx.if_match, ngx.ctx.if_none_match = ngx.var.http_if_match, ngx.var.http_if_none_match
  ngx.req.clear_header "If-Match"
  ngx.req.clear_header "If-None-Match"
  local path, query = ngx.var.request_uri:match "^([^?]*)%??(.*)$"
  local method = ngx.req.get_method()
  if path == "/" then return list_buckets() end
  if path == "/-/counters" then
    ngx.ctx.kind = "own"
    return show_counters()
  end
  local bucket, key = ngx.unescape_uri((path:gsub("%+", "%%2B"))):match "^/([^/]+)/?(.*)$"
  if not bucket then return refuse(400, "InvalidURI") end
  local args = query ~= "" and ngx.decode_args(query, 0) or {}
  if key == "" then return handle_bucket(method, bucket, args) end
  if #key > 255 then return refuse(400, "KeyTooLongError") end
  if (ngx.var.http_content_encoding or ""):find("aws-chunked", 1, true) then return refuse(501, "NotImplemented") end
  if method == "GET" or method == "HEAD" then
    return read_object(bucket, key)
  elseif method == "PUT" then
    local number = args.partNumber
    if number then return put_part(args.uploadId, number) end
    return put_object(bucket, key)
  elseif method == "POST" and args.uploads then
    return create_upload(bucket, key)
  elseif method == "POST" and args.uploadId then
    return complete_upload(bucket, key, args.uploadId)
  elseif method == "DELETE" then
    if args.uploadId then
      remove_upload(args.uploadId)
      return answer(204)
    end
    return delete_object(bucket, key)
  end
  return refuse(501, "NotImplemented")
end

-- What was sent and received, by kind of request.
function M.count()
  local kind = ngx.ctx.kind or ngx.req.get_method():lower()
  counters:incr("requests:" .. kind, 1, 0)
  counters:incr("sent:" .. kind, tonumber(ngx.var.body_bytes_sent), 0)
  counters:incr("received:" .. kind, tonumber(ngx.var.request_length), 0)
end

return M
