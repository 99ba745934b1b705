// Files as the checkpoint layer needs them: mapped to read, streamed to write, and on the disk before they are relied
// on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace mixtune {

// Owns a file descriptor; a negative one is none.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd();
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  int get() const { return fd_; }
  bool close();  // false where the system reports an error

 private:
  int fd_;
};

// A regular file mapped read-only. Anything else (a folder, a device, a pipe) is a UserError, never a hang.
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

// The whole of a regular file of at most `limit` bytes.
std::string read_small_file(const std::string& path, size_t limit);

// A new file, written from its first byte to its last. Whoever makes one puts it in a folder that is removed on
// failure.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);

  const std::string& path() const { return path_; }
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Returns when the content is on the disk.
  void finish();

 private:
  std::string path_;
  Fd fd_;
};

void write_file(const std::string& path, std::string_view content);

// Byte for byte.
void copy_file(const std::string& from, const std::string& to);

// Returns when the folder's entries (new files, renames) are on the disk.
void sync_folder(const std::string& path);

// The folder that holds `path`, never "".
std::string parent_folder(const std::string& path);

}  // namespace mixtune
