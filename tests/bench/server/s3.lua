-- The protocol of S3 over a directory: one flat directory for each bucket, one file for each object.
--
-- nginx itself sends and receives the bytes (sendfile, temporary files that are renamed); this decides. All state is in
-- the file system: size and time are the file's, headers of the object are in one extended attribute, and the ETag is
-- made of time, inode and size. A listing's index is kept in each nginx process and made anew when the directory changed.
--
-- File names are keys with "/" as byte 1. A finished multipart upload is its first part's file, grown to the whole
-- size; the other parts stay where they are until somebody reads the object, so that finishing costs nothing.

local files, answers = require "files", require "answers"
local listing, objects, uploads = require "listing", require "objects", require "uploads"
local answer, refuse, HEAD, NAMESPACE = answers.answer, answers.refuse, answers.HEAD, answers.NAMESPACE

local M = { start = files.start, add_headers = objects.add_headers }

local function list_buckets()
  local text = {}
  for _, name in ipairs(files.names_in(files.bucket_path "")) do
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
    return listing.list(bucket, args)
  elseif method == "HEAD" then
    return answer(files.status_of(files.bucket_path(bucket)) and 200 or 404)
  elseif method == "PUT" then
    files.C.unlink(objects.received())
    files.C.mkdir(files.bucket_path(bucket), 448)
    return answer(200)
  elseif method == "POST" and args.delete then
    return objects.delete_objects(bucket)
  elseif method == "DELETE" then
    if not files.status_of(files.bucket_path(bucket)) then return refuse(404, "NoSuchBucket") end
    return files.C.rmdir(files.bucket_path(bucket)) == 0 and answer(204) or refuse(409, "BucketNotEmpty")
  end
  return refuse(501, "NotImplemented")
end

local function show_counters()
  local lines = {}
  for _, name in ipairs(ngx.shared.counters:get_keys(0)) do lines[#lines + 1] = name .. " " .. ngx.shared.counters:get(name) end
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
    return objects.read_object(bucket, key)
  elseif method == "PUT" then
    local number = args.partNumber
    if number then return uploads.put_part(args.uploadId, number) end
    return objects.put_object(bucket, key)
  elseif method == "POST" and args.uploads then
    return uploads.create_upload(bucket, key)
  elseif method == "POST" and args.uploadId then
    return uploads.complete_upload(bucket, key, args.uploadId)
  elseif method == "DELETE" then
    if args.uploadId then
      files.remove_upload(args.uploadId)
      return answer(204)
    end
    return objects.delete_object(bucket, key)
  end
  return refuse(501, "NotImplemented")
end

-- What was sent and received, by kind of request.
function M.count()
  local kind = ngx.ctx.kind or ngx.req.get_method():lower()
  local counters = ngx.shared.counters
  counters:incr("requests:" .. kind, 1, 0)
  counters:incr("sent:" .. kind, tonumber(ngx.var.body_bytes_sent), 0)
  counters:incr("received:" .. kind, tonumber(ngx.var.request_length), 0)
end

return M
