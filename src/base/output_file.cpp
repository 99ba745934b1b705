#include "base/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace mixtune {

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

void write_file(const std::string& path, std::string_view content) {
  OutputFile file(path);
  file.write(content);
  file.finish();
}

void sync_folder(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || fsync(fd.get()) != 0) fail_write(path, errno);
}

std::string parent_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

}  // namespace mixtune
