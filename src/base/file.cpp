#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

// O_NONBLOCK keeps open() from waiting at a pipe that nobody writes to.
int open_to_read(const std::string& path) {
  return open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

[[noreturn]] void throw_changed(const std::string& path, std::string_view more = "") {
  throw Error(printable_path(path), fmt::format("changed while it was read{}", more),
              "start again, and leave it alone while it is read");
}

}  // namespace

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

bool Fd::close() {
  return ::close(std::exchange(fd_, -1)) == 0;
}

InputFile::InputFile(const std::string& path, std::string_view mend) : path_(path), fd_(open_to_read(path)) {
  struct stat status {};
  if (fd_.get() < 0 || fstat(fd_.get(), &status) != 0)
    throw UserError(printable_path(path), fmt::format("cannot be opened: {}", std::strerror(errno)), mend);
  if (!S_ISREG(status.st_mode))
    throw UserError(printable_path(path), S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file",
                    mend);
  version_ = version();
}

InputFile::Version InputFile::version() const {
  struct stat status {};
  if (fstat(fd_.get(), &status) != 0)
    throw Error(printable_path(path_), fmt::format("cannot be read: {}", std::strerror(errno)), "check the disk");
  return {static_cast<uint64_t>(status.st_size), status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

void InputFile::read(uint64_t offset, std::span<std::byte> buffer) const {
  MT_CHECK(offset <= size() && buffer.size() <= size() - offset);
  while (!buffer.empty()) {
    const ssize_t n = pread(fd_.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(printable_path(path_), fmt::format("cannot be read at byte {}: {}", offset, std::strerror(errno)),
                  "check the disk");
    if (n == 0) throw_changed(path_, fmt::format(": it ends at byte {} of {}", offset, size()));
    buffer = buffer.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
}

std::string InputFile::read(uint64_t offset, uint64_t size) const {
  std::string text(size, '\0');
  read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

void InputFile::check_unchanged() const {
  if (version() != version_) throw_changed(path_);
}

std::string read_small_file(const std::string& path, size_t limit, std::string_view mend) {
  const InputFile file(path, mend);
  constexpr size_t kMiB = 1 << 20;
  if (file.size() > limit)
    throw UserError(
        printable_path(path),
        fmt::format("is larger than {}", limit % kMiB == 0 ? fmt::format("{} MiB", limit / kMiB) : format_bytes(limit)),
        mend);
  std::string text = file.read(0, file.size());
  file.check_unchanged();
  return text;
}

}  // namespace mixtune
