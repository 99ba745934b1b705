#include "data/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace mixtune {

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe that nobody writes to must not make open() wait.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0)
    throw UserError(printable(path_, 200), fmt::format("cannot be read: {}", std::strerror(errno)), "check the path");
  struct stat status {};
  if (fstat(fd_, &status) == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<uint64_t>(status.st_size);
    return;
  }
  close(fd_);
  throw UserError(printable(path_, 200), S_ISDIR(status.st_mode) ? "is a folder" : "is not a regular file",
                  "name a file");
}

InputFile::~InputFile() {
  close(fd_);
}

size_t InputFile::read(char* to, size_t count) {
  ssize_t n;
  do {
    n = ::read(fd_, to, count);
  } while (n < 0 && errno == EINTR);
  if (n < 0)
    throw Error(printable(path_, 200), fmt::format("cannot be read: {}", std::strerror(errno)), "check the disk");
  return static_cast<size_t>(n);
}

}  // namespace mixtune
