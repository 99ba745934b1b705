// Files that mixtune reads: regular ones only. A folder, device, pipe or socket is a UserError, never a hang.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mixtune {

// Owns a file descriptor; a negative one is none.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd();
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&&) = delete;

  int get() const { return fd_; }
  bool close();  // false where the system reports an error

 private:
  int fd_;
};

// A regular file mapped read-only.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::string_view bytes() const { return {data_, size_}; }
  // Gives the pages that touching `part` mapped back to the system; they are read again if touched again.
  void release(std::span<const std::byte> part) const;

 private:
  std::string path_;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// The whole of a regular file of at most `limit` bytes. What is wrong with the path or the size is a UserError that
// ends in `mend`.
std::string read_small_file(const std::string& path, size_t limit, std::string_view mend);

}  // namespace mixtune
