#include "run/folder_claim.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/output_file.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr const char* kMend = "choose another output_dir";

std::string lock_path(const std::string& path) {
  return path + "/.lock";
}

[[noreturn]] void fail(const std::string& path, const char* what, int error) {
  throw UserError(printable_path(path), fmt::format("{}: {}", what, std::strerror(error)), kMend);
}

constexpr size_t kMostDigits = 20;  // of a process id

[[noreturn]] void fail_not_ours(const std::string& path) {
  throw UserError(printable_path(lock_path(path)), "is a file that no run of mixtune made",
                  "move it elsewhere, or choose another output_dir");
}

// The content of a lock file: the process that wrote it, or nothing yet. Throws where no run made the file.
std::string owner(int fd, const std::string& path) {
  struct stat status {};
  std::array<char, kMostDigits + 1> text{};
  const bool is_ours = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink <= 1;
  const ssize_t size = is_ours ? pread(fd, text.data(), text.size(), 0) : -1;
  const std::string_view pid(text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
  if (size < 0 || pid.size() > kMostDigits || pid.find_first_not_of("0123456789") != pid.npos) fail_not_ours(path);
  return std::string(pid);
}

[[noreturn]] void fail_claimed(const std::string& path, const std::string& pid) {
  throw UserError(printable_path(path),
                  pid.empty() ? "another run is using it" : fmt::format("another run is using it (process {})", pid),
                  "choose another output_dir, or wait until that run has ended");
}

enum class Locked { kYes, kNo, kUnsupported };

// `kind`: LOCK_EX to have the folder, LOCK_SH to look whether another process has it.
Locked try_lock(int fd, int kind) {
  if (flock(fd, kind | LOCK_NB) == 0) return Locked::kYes;
  return errno == EWOULDBLOCK ? Locked::kNo : Locked::kUnsupported;
}

// Locks an open lock file. Returns false where file systems have no locks. Throws where another process has the folder;
// waits for processes that only look, which they do in no time.
bool lock_file(int fd, const std::string& path) {
  constexpr std::chrono::seconds kPatience{5};
  owner(fd, path);
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(1))) {
    if (const Locked locked = try_lock(fd, LOCK_EX); locked != Locked::kNo) return locked == Locked::kYes;
    if (try_lock(fd, LOCK_SH) == Locked::kNo || std::chrono::steady_clock::now() > end)
      fail_claimed(path, owner(fd, path));
    flock(fd, LOCK_UN);
  }
}

// Whether `path` still names the file: a process that gives a folder up removes its lock.
bool is_named(int fd, const std::string& path) {
  struct stat open_file {
  }, named{};
  return fstat(fd, &open_file) == 0 && lstat(path.c_str(), &named) == 0 && open_file.st_ino == named.st_ino &&
         open_file.st_dev == named.st_dev;
}

void write_owner(int fd, const std::string& path) {
  const std::string pid = std::to_string(getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, pid.data(), pid.size(), 0) < 0) fail(path, "cannot be written", errno);
}

}  // namespace

// The delegation makes an object, so that its destructor tidies up when the rest fails.
FolderClaim::FolderClaim(const std::string& path) : FolderClaim(path, Unclaimed{}) {
  make_folders();
  for (bool named = false; !named;) {
    const bool is_new = open_lock(), locked = lock_file(lock_->get(), path_);
    made_lock_ = is_new;  // not before it is locked: until then another process may have it
    named = !locked || is_named(lock_->get(), lock_path(path_));
    if (!locked)
      log_warning("{}: the file system has no locks: start no second run with this output_dir", printable_path(path_));
  }
  write_owner(lock_->get(), path_);
}

FolderClaim::~FolderClaim() {
  if (kept_) return;
  if (made_lock_) unlink(lock_path(path_).c_str());
  for (; !made_.empty(); made_.pop_back()) rmdir(made_.back().c_str());
}

// The folders that it made are to be there after a power cut, too; one that may not be read cannot be asked for that.
void FolderClaim::keep() {
  kept_ = true;
  for (const std::string& folder : made_) {
    try {
      sync_folder(parent_folder(folder));
    } catch (const Error&) {
      continue;
    }
  }
}

void FolderClaim::make_folders() {
  std::vector<std::string> missing;
  std::error_code error;
  for (std::string place = path_; !fs::exists(fs::status(place, error)); place = parent_folder(place))
    missing.push_back(place);
  for (; !missing.empty(); missing.pop_back()) {
    const std::string& folder = missing.back();
    if (mkdir(folder.c_str(), 0777) == 0) {
      made_.push_back(folder);
      continue;
    }
    const int reason = errno;
    if (!fs::is_directory(folder, error)) fail(path_, "cannot be made", reason);
  }
}

bool FolderClaim::open_lock() {
  constexpr int kFlags = O_RDWR | O_CREAT | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
  const std::string path = lock_path(path_);
  lock_.emplace(open(path.c_str(), kFlags | O_EXCL, 0666));
  const bool is_new = lock_->get() >= 0;
  if (!is_new && errno == EEXIST) lock_.emplace(open(path.c_str(), kFlags, 0666));
  if (lock_->get() < 0) fail(path_, "cannot be written", errno);
  return is_new;
}

void check_unclaimed(const std::string& path) {
  const Fd lock(open(lock_path(path).c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  if (lock.get() < 0 && errno == ELOOP) fail_not_ours(path);
  if (lock.get() < 0) return;
  const std::string pid = owner(lock.get(), path);
  if (try_lock(lock.get(), LOCK_SH) == Locked::kNo) fail_claimed(path, pid);
}

}  // namespace mixtune
