#include "base/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

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

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_write(path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
    written_ += written;
    push();
  }
}

// Starts what has come since the last time on its way, and waits for what was before: two windows at most are in memory
// alone. Not every file system can; what goes wrong on the disk, finish() says.
void OutputFile::push() {
  if (written_ - pushed_ < kWindow) return;
  sync_file_range(fd_.get(), pushed_, written_ - pushed_, SYNC_FILE_RANGE_WRITE);
  if (pushed_ > 0)
    sync_file_range(fd_.get(), 0, pushed_,
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  pushed_ = written_;
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
