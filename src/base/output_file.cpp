#include "base/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kWindow = 32 << 20;

[[noreturn]] void fail_write(const std::string& path, int error) {
  throw Error(path, fmt::format("cannot be written: {}", std::strerror(error)),
              error == ENOSPC || error == EDQUOT ? "free some space on this disk or write to another"
                                                 : "choose a place that can be written");
}

}  // namespace

OutputFile::OutputFile(const std::string& path)
    : path_(path), fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
  if (fd_.get() < 0) fail_write(path_, errno);
}

void OutputFile::write_at(int64_t place, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd_.get(), bytes.data(), bytes.size(), place);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_write(path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    place += written;
    end_ = std::max(end_, place);
    unpushed_ += written;
    push();
  }
}

// Waits for bytes on their way to the disk, and starts those that came since: at most two windows are in memory alone.
// Not every file system can; finish() reports what goes wrong on the disk.
void OutputFile::push() {
  if (unpushed_ < kWindow) return;
  sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE);  // 0: to the end
  unpushed_ = 0;
}

void OutputFile::finish() {
  if (fsync(fd_.get()) != 0) fail_write(path_, errno);
  if (!fd_.close()) fail_write(path_, errno);
}

void check_output_file(const std::string& path, bool overwrite) {
  const std::string shown = printable(path, 200);
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(path, ignored);
  if (fs::is_directory(status)) throw UserError(shown, "is a folder", "name a file as the output");
  const bool exists = fs::exists(status);
  if (exists && !fs::is_regular_file(status))
    throw UserError(shown, fs::is_symlink(status) ? "is a link" : "is not a regular file", "name a file as the output");
  if (exists && !overwrite) throw UserError(shown, "exists already", "remove it, or name another output");
  const fs::path folder = fs::absolute(path).parent_path();
  if (!fs::is_directory(folder, ignored))
    throw UserError(printable(folder.string(), 200), "is not a folder", "create it first");
  if (access(folder.c_str(), W_OK | X_OK) != 0)
    throw UserError(printable(folder.string(), 200), "is not writable",
                    "name an output elsewhere, or change its rights");
}

void write_file(const std::string& path, std::string_view content) {
  OutputFile file(path);
  file.write(content);
  file.finish();
}

void sync_folder(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || fsync(fd.get()) != 0) fail_write(path, errno);
}

uint64_t free_space(const std::string& folder) {
  struct statvfs disk {};
  // A file system without limits of its own says that it has no blocks at all.
  if (statvfs(folder.c_str(), &disk) != 0 || disk.f_blocks == 0) return std::numeric_limits<uint64_t>::max();
  return uint64_t{disk.f_bavail} * disk.f_frsize;
}

void check_space(const std::string& path, uint64_t bytes) {
  if (const uint64_t free = free_space(parent_folder(path)); free < bytes)
    throw Error(printable_path(path),
                fmt::format("takes {}, and its disk has {} left", format_bytes(bytes), format_bytes(free)),
                "free some space on this disk or write to another");
}

std::string parent_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

}  // namespace mixtune
