#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

constexpr uintptr_t kFaultAround = 64 << 10;  // Linux maps so much, so aligned, around a touched page of a file

std::string shown(const std::string& path) {
  return printable(path, 400);
}

// O_NONBLOCK: a pipe that nobody writes to must not make open() wait.
int open_to_read(const std::string& path) {
  return open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
}

// The size of the regular file that `path` was opened as.
size_t regular_size(const Fd& fd, const std::string& path, std::string_view mend) {
  struct stat status {};
  if (fd.get() < 0 || fstat(fd.get(), &status) != 0)
    throw UserError(shown(path), fmt::format("cannot be opened: {}", std::strerror(errno)), mend);
  if (!S_ISREG(status.st_mode))
    throw UserError(shown(path), S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file", mend);
  return static_cast<size_t>(status.st_size);
}

// Up to `size` bytes, fewer where the file ends before.
std::string read_up_to(const Fd& fd, size_t size, const std::string& path) {
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n = read(fd.get(), text.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(shown(path), fmt::format("cannot be read: {}", std::strerror(errno)), "check the disk");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

}  // namespace

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

bool Fd::close() {
  return ::close(std::exchange(fd_, -1)) == 0;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Fd fd(open_to_read(path));
  size_ = regular_size(fd, path, "check the path");
  if (size_ == 0) return;
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED)
    throw Error(shown(path), fmt::format("cannot be mapped: {}", std::strerror(errno)), "check the disk");
  data_ = static_cast<const char*>(data);
  madvise(data, size_, MADV_SEQUENTIAL);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  const auto start = reinterpret_cast<uintptr_t>(data_);
  const auto first = reinterpret_cast<uintptr_t>(part.data());
  const uintptr_t begin = std::max(start, first / kFaultAround * kFaultAround);
  const uintptr_t end = std::min(start + size_, (first + part.size() + kFaultAround - 1) / kFaultAround * kFaultAround);
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_small_file(const std::string& path, size_t limit, std::string_view mend) {
  const Fd fd(open_to_read(path));
  const size_t size = regular_size(fd, path, mend);
  constexpr size_t kMiB = 1 << 20;
  if (size > limit)
    throw UserError(
        shown(path),
        fmt::format("is larger than {}", limit % kMiB == 0 ? fmt::format("{} MiB", limit / kMiB) : format_bytes(limit)),
        mend);
  return read_up_to(fd, size, path);
}

}  // namespace mixtune
