-- The files that hold buckets, objects and uploads: `buckets/NAME/KEY`, `uploads/ID/NUMBER`, `incoming/` for what is
-- being received. Everything is found in the file system at each request; nothing else is state.

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

local root, lock_file
local status_buffer = ffi.new "struct bench_statx"
local text_buffer = ffi.new("char[?]", 65536)
local number_of_files = 0

local function start(directory) root = directory end

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

-- An empty file, and its name.
local function create()
  local path = new_path()
  C.close(C.open(path, bit.bor(O_WRONLY, O_CREAT), ffi.cast("int", 384)))
  return path
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

local function changed(bucket) ngx.shared.counters:incr("changes:" .. bucket, 1, 0) end
local function changes(bucket) return ngx.shared.counters:get("changes:" .. bucket) or 0 end

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

local function delete_file(bucket, key)
  local path = object_path(bucket, key)
  locked(function()
    local parts = read_attribute(path, PARTS)
    if parts then remove_upload(parts:match "^%S+") end
    C.unlink(path)
    changed(bucket)
  end)
end

return {
  C = C, HEADERS = HEADERS, PARTS = PARTS, start = start, status_of = status_of, read_attribute = read_attribute,
  bucket_path = bucket_path, object_path = object_path, upload_path = upload_path, new_path = new_path,
  create = create, copy_range = copy_range, names_in = names_in, remove_upload = remove_upload, locked = locked,
  changed = changed, changes = changes, join_parts = join_parts, delete_file = delete_file,
}
