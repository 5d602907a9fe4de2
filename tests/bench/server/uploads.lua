-- Uploads in parts.

local files, answers = require "files", require "answers"
local C, HEADERS, PARTS = files.C, files.HEADERS, files.PARTS
local status_of, read_attribute = files.status_of, files.read_attribute
local upload_path, new_path, copy_range, remove_upload = files.upload_path, files.new_path,
  files.copy_range, files.remove_upload
local answer, refuse, escape, matches = answers.answer, answers.refuse, answers.escape, answers.matches
local HEAD, NAMESPACE = answers.HEAD, answers.NAMESPACE
local objects = require "objects"
local headers_text, received, replace, refuse_replacing = objects.headers_text, objects.received, objects.replace,
  objects.refuse_replacing
local source_of_copy, body_text = objects.source_of_copy, objects.body_text

local function create_upload(bucket, key)
  ngx.req.discard_body()
  local id = new_path():match "[^/]+$"
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

return {
  create_upload = create_upload, put_part = put_part, complete_upload = complete_upload,
}
