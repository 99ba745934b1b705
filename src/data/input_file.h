// InputFile: a regular file opened for reading, and nothing else that a path can name.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

class InputFile {
 public:
  // Throws UserError where `path` is missing, unreadable, or a folder, device, pipe or socket.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Up to `count` bytes; 0 only at the end of the file.
  size_t read(char* to, size_t count);

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  // when it was opened

 private:
  std::string path_;
  int fd_;
  uint64_t size_ = 0;
};

}  // namespace mixtune
