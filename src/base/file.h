// Files that mixtune reads: only regular ones. A folder, device, pipe or socket is a UserError, never a hang.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mixtune {

// Owns a file descriptor; a negative one stands for none.
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

// A regular file, open to be read by any number of threads at once. It stays the file that was opened, whatever takes
// its name. It is read, never mapped, so that a file which is cut meanwhile is an Error and no signal.
class InputFile {
 public:
  // Throws UserError, which ends in `mend`, where something is wrong with the path.
  explicit InputFile(const std::string& path, std::string_view mend = "check the path");

  const std::string& path() const { return path_; }
  uint64_t size() const { return version_.size; }  // bytes, on opening
  const Fd& fd() const { return fd_; }

  // Fills `buffer` with the bytes from `offset` on, which lie below size(). Throws Error.
  void read(uint64_t offset, std::span<std::byte> buffer) const;
  std::string read(uint64_t offset, uint64_t size) const;

  // Throws Error where the content has changed since opening, as far as the file's size and time of change tell.
  void check_unchanged() const;

 private:
  struct Version {
    uint64_t size = 0;
    int64_t seconds = 0, nanoseconds = 0;  // of the last change
    bool operator==(const Version&) const = default;
  };
  Version version() const;

  std::string path_;
  Fd fd_;
  Version version_;
};

// The whole of a regular file of at most `limit` bytes. Throws UserError, which ends in `mend`, where something is
// wrong with the path or the size; Error where the file changes while it is read.
std::string read_small_file(const std::string& path, size_t limit, std::string_view mend);

}  // namespace mixtune
