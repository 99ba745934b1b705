#include "checkpoint/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

constexpr uintptr_t kFaultAround = 64 << 10;  // Linux maps so much, so aligned, around a touched page of a file

[[noreturn]] void fail_write(const std::string& path, int error) {
  throw Error(path, fmt::format("cannot be written: {}", std::strerror(error)),
              error == ENOSPC || error == EDQUOT ? "free some space on this disk or write to another"
                                                 : "choose a place that can be written");
}

}  // namespace

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

bool Fd::close() {
  return ::close(std::exchange(fd_, -1)) == 0;
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat status {};
  if (fd.get() < 0 || fstat(fd.get(), &status) != 0)
    throw UserError(printable(path, 400), fmt::format("cannot be opened: {}", std::strerror(errno)), "check the path");
  if (!S_ISREG(status.st_mode))
    throw UserError(printable(path, 400), S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file",
                    "check the path");
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (data == MAP_FAILED)
    throw Error(printable(path, 400), fmt::format("cannot be mapped: {}", std::strerror(errno)), "check the disk");
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

std::string read_small_file(const std::string& path, size_t limit) {
  const MappedFile file(path);
  if (file.bytes().size() > limit)
    throw UserError(printable(path, 400),
                    fmt::format("has {}, more than the {} that such a file may have", format_bytes(file.bytes().size()),
                                format_bytes(limit)),
                    "check that it is the right file");
  return std::string(file.bytes());
}

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
  }
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

void copy_file(const std::string& from, const std::string& to) {
  const MappedFile source(from);
  write_file(to, source.bytes());
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
