-- What is said in answers: XML, errors, times; and which condition an ETag meets.

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

local function matches(condition, etag)
  if condition == "*" then return true end
  for tag in condition:gmatch "[^,%s]+" do
    if tag:gsub('"', "") == etag:gsub('"', "") then return true end
  end
  return false
end

return {
  answer = answer, refuse = refuse, escape = escape, url_encode = url_encode, time_text = time_text, HEAD = HEAD,
  NAMESPACE = NAMESPACE, matches = matches,
}
