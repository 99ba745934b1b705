#include "metrics/record_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

// Writes `text`. Returns false, with errno set, where not all of it could be written.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace

RecordFile::RecordFile(const std::string& path, bool goes_on)
    : path_(path),
      file_(open(path.c_str(), O_WRONLY | O_CREAT | (goes_on ? 0 : O_EXCL) | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666)) {
  if (file_.get() < 0)
    throw UserError(printable_path(path), fmt::format("cannot be written: {}", std::strerror(errno)),
                    "check the disk's space and the folder's permissions");
  size_ = lseek(file_.get(), 0, SEEK_END);
}

// Cuts off again what of a record does not fit.
void RecordFile::write(std::string_view record) {
  if (!is_clean_) is_clean_ = ftruncate(file_.get(), size_) == 0;
  if (is_clean_ && write_all(file_.get(), record)) {
    size_ += static_cast<int64_t>(record.size());
    return;
  }
  const int error = errno;
  is_clean_ = ftruncate(file_.get(), size_) == 0;
  ++lost_;
  warn(error, "the run goes on without what is lost there");
}

void RecordFile::finish() {
  if (lost_ > 0) log_warning("{}: {} records could not be written, and are missing", printable_path(path_), lost_);
  if (fsync(file_.get()) != 0) warn(errno, "what is in it may not be on the disk");
}

void RecordFile::warn(int error, const char* consequence) {
  if (!warned_) log_warning("{}: cannot be written: {}; {}", printable_path(path_), std::strerror(error), consequence);
  warned_ = true;
}

}  // namespace mixtune
