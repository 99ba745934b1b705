#include "data/cache_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr size_t kMostBytes = 400;

}  // namespace

std::optional<CacheLock> CacheLock::try_take(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (fd.get() < 0)
    throw Error(printable_path(path), fmt::format("cannot be written: {}", std::strerror(errno)), "check its folder");
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return {};
  CacheLock lock(std::move(fd));
  lock.say("");
  return lock;
}

void CacheLock::say(const std::string& line) {
  // One write, filled with spaces: a reader sees no mixture of two lines.
  const std::string text = fmt::format("{:<{}}", line.substr(0, kMostBytes), kMostBytes);
  [[maybe_unused]] const ssize_t written = pwrite(fd_.get(), text.data(), text.size(), 0);
}

std::string read_lock(const std::string& path) {
  try {
    std::string text = read_small_file(path, kMostBytes, "");
    text.erase(text.find_last_not_of(' ') + 1);
    return printable(text, kMostBytes);
  } catch (const Error&) {
    return "";
  }
}

}  // namespace mixtune
