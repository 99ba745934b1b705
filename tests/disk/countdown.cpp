// A library to preload into a program: it counts the calls by which the process changes a folder, and makes one go
// wrong. Calls of other paths are made as they are. The environment says
//   MIXTUNE_COUNTDOWN_FOLDER  the folder, by its canonical path
//   MIXTUNE_COUNTDOWN_LOG     a file outside: a line "NUMBER CALL PATH" for each counted call, before it is made
//   MIXTUNE_COUNTDOWN_AT      the number of the call that goes wrong; none: all are made
//   MIXTUNE_COUNTDOWN_ACTION  kill: ends the process by SIGKILL; of a write, half was made
//                             eio: that call fails
//                             enospc: from that call on every one fails that takes space
//                             short: a write makes half of its bytes
//                             wait: that call is made once there is a file of the log's name and ".go"
// Every function is a system call, so that nothing of this process is used while it is in an unknown state.
#include <fcntl.h>
#include <linux/limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace {

enum class Action { kNone, kKill, kEio, kEnospc, kShort, kWait };
enum class Takes { kSpace, kNothing };

struct Settings {
  std::string_view folder;
  int log = -1;
  std::string go;  // a file
  long at = 0;
  Action action = Action::kNone;
};

Action action_of(std::string_view name) {
  if (name == "kill") return Action::kKill;
  if (name == "eio") return Action::kEio;
  if (name == "enospc") return Action::kEnospc;
  if (name == "wait") return Action::kWait;
  return name == "short" ? Action::kShort : Action::kNone;
}

const Settings& settings() {
  static const Settings settings = [] {
    Settings read;
    const char *folder = getenv("MIXTUNE_COUNTDOWN_FOLDER"), *log = getenv("MIXTUNE_COUNTDOWN_LOG"),
               *at = getenv("MIXTUNE_COUNTDOWN_AT"), *action = getenv("MIXTUNE_COUNTDOWN_ACTION");
    if (folder == nullptr || log == nullptr) return read;
    read.folder = folder;
    read.log = static_cast<int>(syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    read.go = std::string(log) + ".go";
    read.at = at == nullptr ? 0 : atol(at);
    read.action = action_of(action == nullptr ? "" : action);
    return read;
  }();
  return settings;
}

// The path of an open file or folder: its name of now.
std::string path_of(int fd) {
  char link[32], path[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const long size = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path));
  return size > 0 ? std::string(path, static_cast<size_t>(size)) : std::string();
}

std::string path_of(int folder, const char* name) {
  if (name == nullptr) return "";
  if (name[0] == '/') return name;
  if (folder != AT_FDCWD) return path_of(folder) + "/" + name;
  char here[PATH_MAX];
  return syscall(SYS_getcwd, here, sizeof(here)) > 0 ? std::string(here) + "/" + name : std::string();
}

bool counts(std::string_view path) {
  const std::string_view folder = settings().folder;
  return !folder.empty() && path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

[[noreturn]] void die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

void wait_for(const std::string& file) {
  while (access(file.c_str(), F_OK) != 0) usleep(1000);
}

// What becomes of a call.
struct Fate {
  int error = 0;                    // it fails so
  bool half = false, dies = false;  // a write makes half of its bytes; the process ends then
};

Fate fate_of(const char* call, const std::string& path, Takes takes) {
  static std::atomic<long> calls = 0;
  if (!counts(path)) return {};
  const long number = ++calls;
  const std::string line = std::to_string(number) + " " + call + " " + path + "\n";
  syscall(SYS_write, settings().log, line.data(), line.size());
  const bool is_it = number == settings().at;
  switch (settings().action) {
    case Action::kKill:
      return {.half = is_it, .dies = is_it};
    case Action::kEio:
      return {.error = is_it ? EIO : 0};
    case Action::kEnospc: {
      const bool full = settings().at > 0 && number >= settings().at && takes == Takes::kSpace;
      return {.error = full ? ENOSPC : 0};
    }
    case Action::kShort:
      return {.half = is_it};
    case Action::kWait:
      if (is_it) wait_for(settings().go);
      return {};
    case Action::kNone:
      return {};
  }
  return {};
}

template <class F>
long counted(const char* call, const std::string& path, Takes takes, F&& make) {
  const Fate fate = fate_of(call, path, takes);
  if (fate.dies) die();
  if (fate.error == 0) return make();
  errno = fate.error;
  return -1;
}

// `make(n)` writes the first n bytes.
template <class F>
long counted_write(const char* call, int fd, size_t size, F&& make) {
  const Fate fate = fate_of(call, path_of(fd), Takes::kSpace);
  if (fate.error != 0) {
    errno = fate.error;
    return -1;
  }
  const long written = make(fate.half && size > 1 ? size / 2 : size);
  if (fate.dies) die();
  return written;
}

int open_file(int folder, const char* name, int flags, mode_t mode) {
  const auto make = [&] {
    return syscall(SYS_openat, folder, name, flags, mode);
  };
  if ((flags & (O_CREAT | O_TRUNC)) == 0) return static_cast<int>(make());
  return static_cast<int>(counted("open", path_of(folder, name), Takes::kSpace, make));
}

mode_t mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;
}

// Of a rename or link the path that it goes to, unless only the other one counts.
std::string path_of_two(int from_folder, const char* from, int to_folder, const char* to) {
  const std::string target = path_of(to_folder, to);
  return counts(target) ? target : path_of(from_folder, from);
}

int move(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  return static_cast<int>(counted("rename", path_of_two(from_folder, from, to_folder, to), Takes::kNothing,
                                  [&] { return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags); }));
}

int remove_at(int folder, const char* name, int flags) {
  return static_cast<int>(counted((flags & AT_REMOVEDIR) != 0 ? "rmdir" : "unlink", path_of(folder, name),
                                  Takes::kNothing, [&] { return syscall(SYS_unlinkat, folder, name, flags); }));
}

int sync(const char* call, int fd, long number) {
  return static_cast<int>(counted(call, path_of(fd), Takes::kSpace, [&] { return syscall(number, fd); }));
}

}  // namespace

extern "C" {

int open(const char* name, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return open_file(AT_FDCWD, name, flags, mode);
}

int openat(int folder, const char* name, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return open_file(folder, name, flags, mode);
}

int creat(const char* name, mode_t mode) {
  return open_file(AT_FDCWD, name, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

ssize_t write(int fd, const void* bytes, size_t size) {
  return counted_write("write", fd, size, [&](size_t n) { return syscall(SYS_write, fd, bytes, n); });
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t place) {
  return counted_write("pwrite", fd, size, [&](size_t n) { return syscall(SYS_pwrite64, fd, bytes, n, place); });
}

// Short, they make their first piece.
ssize_t writev(int fd, const iovec* pieces, int count) {
  return counted_write("writev", fd, static_cast<size_t>(count),
                       [&](size_t n) { return syscall(SYS_writev, fd, pieces, n); });
}

ssize_t pwritev(int fd, const iovec* pieces, int count, off_t place) {
  return counted_write("pwritev", fd, static_cast<size_t>(count),
                       [&](size_t n) { return syscall(SYS_pwritev, fd, pieces, n, place, 0); });
}

int fsync(int fd) {
  return sync("fsync", fd, SYS_fsync);
}

int fdatasync(int fd) {
  return sync("fdatasync", fd, SYS_fdatasync);
}

int syncfs(int fd) {
  return sync("syncfs", fd, SYS_syncfs);
}

int sync_file_range(int fd, off64_t from, off64_t count, unsigned flags) {
  return static_cast<int>(counted("sync_file_range", path_of(fd), Takes::kSpace,
                                  [&] { return syscall(SYS_sync_file_range, fd, from, count, flags); }));
}

int ftruncate(int fd, off_t size) noexcept {
  return static_cast<int>(
      counted("ftruncate", path_of(fd), Takes::kNothing, [&] { return syscall(SYS_ftruncate, fd, size); }));
}

int truncate(const char* name, off_t size) noexcept {
  return static_cast<int>(
      counted("truncate", path_of(AT_FDCWD, name), Takes::kNothing, [&] { return syscall(SYS_truncate, name, size); }));
}

int fallocate(int fd, int mode, off_t from, off_t count) {
  return static_cast<int>(
      counted("fallocate", path_of(fd), Takes::kSpace, [&] { return syscall(SYS_fallocate, fd, mode, from, count); }));
}

// Returns its error.
int posix_fallocate(int fd, off_t from, off_t count) {
  return fallocate(fd, 0, from, count) == 0 ? 0 : errno;
}

int rename(const char* from, const char* to) noexcept {
  return move(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return move(from_folder, from, to_folder, to, 0);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  return move(from_folder, from, to_folder, to, flags);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
  return static_cast<int>(counted("link", path_of_two(from_folder, from, to_folder, to), Takes::kSpace,
                                  [&] { return syscall(SYS_linkat, from_folder, from, to_folder, to, flags); }));
}

int link(const char* from, const char* to) noexcept {
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlink(const char* target, const char* name) noexcept {
  return static_cast<int>(counted("symlink", path_of(AT_FDCWD, name), Takes::kSpace,
                                  [&] { return syscall(SYS_symlinkat, target, AT_FDCWD, name); }));
}

int unlinkat(int folder, const char* name, int flags) noexcept {
  return remove_at(folder, name, flags);
}

int unlink(const char* name) noexcept {
  return remove_at(AT_FDCWD, name, 0);
}

int rmdir(const char* name) noexcept {
  return remove_at(AT_FDCWD, name, AT_REMOVEDIR);
}

// libc's own makes calls that nothing interposes.
int remove(const char* name) noexcept {
  struct stat status {};
  const bool is_folder = fstatat(AT_FDCWD, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
  return remove_at(AT_FDCWD, name, is_folder ? AT_REMOVEDIR : 0);
}

int mkdirat(int folder, const char* name, mode_t mode) noexcept {
  return static_cast<int>(
      counted("mkdir", path_of(folder, name), Takes::kSpace, [&] { return syscall(SYS_mkdirat, folder, name, mode); }));
}

int mkdir(const char* name, mode_t mode) noexcept {
  return mkdirat(AT_FDCWD, name, mode);
}

// The names that programs with large files have for them: the same here, where off_t has 64 bits.
static_assert(sizeof(off_t) == sizeof(off64_t));
int open64(const char* name, int flags, ...) __attribute__((alias("open")));
int openat64(int folder, const char* name, int flags, ...) __attribute__((alias("openat")));
int creat64(const char* name, mode_t mode) __attribute__((alias("creat")));
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t place) __attribute__((alias("pwrite")));
ssize_t pwritev64(int fd, const iovec* pieces, int count, off64_t place) __attribute__((alias("pwritev")));
int ftruncate64(int fd, off64_t size) noexcept __attribute__((alias("ftruncate")));
int truncate64(const char* name, off64_t size) noexcept __attribute__((alias("truncate")));
int fallocate64(int fd, int mode, off64_t from, off64_t count) __attribute__((alias("fallocate")));
int posix_fallocate64(int fd, off64_t from, off64_t count) __attribute__((alias("posix_fallocate")));
}
