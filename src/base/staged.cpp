#include "base/staged.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMark = ".tmp-";
constexpr int kWordDigits = 16;
constexpr std::chrono::hours kStale{7 * 24};  // another host's temporary names

// What the words of this process begin with. One before it may have had its number: a container's first always has.
const std::string& own_digits() {
  static const std::string digits = unguessable_word().substr(kWordDigits / 2);
  return digits;
}

std::string temporary_name(const std::string& path) {
  return fmt::format("{}/.{}{}{}-{}-{}{}", parent_folder(path), fs::path(path).filename().string(), kMark, host_name(),
                     getpid(), own_digits(), unguessable_word().substr(kWordDigits / 2));
}

struct Maker {
  std::string_view host;
  pid_t pid;
  std::string_view word;
};

// The maker of a temporary name; none if it is not one.
std::optional<Maker> maker(std::string_view name) {
  const size_t mark = name.rfind(kMark);
  if (mark == std::string_view::npos) return {};
  const std::string_view rest = name.substr(mark + kMark.size());
  const size_t word = rest.rfind('-'), digits = word == 0 ? rest.npos : rest.rfind('-', word - 1);
  if (word == rest.npos || digits == rest.npos || rest.size() - word != 1 + kWordDigits ||
      rest.find_first_not_of("0123456789abcdef", word + 1) != rest.npos)
    return {};
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(rest.data() + digits + 1, rest.data() + word, pid);
  if (error != std::errc() || end != rest.data() + word || pid <= 0) return {};
  return Maker{rest.substr(0, digits), pid, rest.substr(word + 1)};
}

// A process that nobody has waited for yet, as in a container whose first process never does, runs no more.
bool runs(pid_t pid) {
  if (kill(pid, 0) != 0 && errno != EPERM) return false;
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string stat;  // "PID (NAME) STATE ..."
  std::getline(file, stat);
  const size_t name_end = stat.rfind(") ");
  return name_end == stat.npos || (stat[name_end + 2] != 'Z' && stat[name_end + 2] != 'X');
}

bool is_old(const fs::path& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return false;
  const auto changed = std::chrono::system_clock::from_time_t(status.st_mtime);
  return std::chrono::system_clock::now() - changed > kStale;
}

bool is_stale(const Maker& maker, const fs::path& path) {
  if (maker.host != host_name()) return is_old(path);
  return maker.pid == getpid() ? !maker.word.starts_with(own_digits()) : !runs(maker.pid);
}

[[noreturn]] void fail_move(const std::string& to, int error) {
  throw Error(printable_path(to), fmt::format("cannot be put in place: {}", std::strerror(error)),
              "check the folder it is in");
}

[[noreturn]] void fail_existing(const std::string& path) {
  throw UserError(printable_path(path), "exists already", "choose another name or remove it");
}

void move(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_move(to, errno);
}

// Moves without replacing anything. Where the file system cannot rename so, a link does as much for a file. Where it
// has no links either, and for a folder (whose rename replaces an empty one at most), it looks first.
void move_new(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  if (errno == EEXIST) fail_existing(to);
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) fail_move(to, errno);
  if (link(from.c_str(), to.c_str()) == 0) {
    unlink(from.c_str());
    return;
  }
  if (errno == EEXIST || is_taken(to)) fail_existing(to);
  move(from, to);
}

}  // namespace

bool is_taken(const std::string& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

StagedPath::StagedPath(const std::string& final_path)
    : final_path_(without_trailing_slash(final_path)), path_(temporary_name(final_path_)) {
  remove_stale(parent_folder(final_path_), fmt::format("{}{}", fs::path(final_path_).filename().string(), kMark));
}

StagedPath::~StagedPath() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(path_, ignored);
}

void StagedPath::commit() {
  move(path_, final_path_);
  finish();
}

void StagedPath::commit_new() {
  move_new(path_, final_path_);
  finish();
}

void StagedPath::finish() {
  committed_ = true;
  sync_folder(parent_folder(final_path_));
}

StagedFolder::StagedFolder(const std::string& final_path) : staged_(final_path) {
  if (is_taken(without_trailing_slash(final_path))) fail_existing(final_path);
  // An existing folder, or a link to one, would be somebody else's.
  if (mkdir(path().c_str(), 0777) != 0)
    throw UserError(printable_path(final_path), fmt::format("cannot be made: {}", std::strerror(errno)),
                    "choose a place that exists and can be written");
}

void StagedFolder::commit() {
  sync_folder(path());
  staged_.commit_new();
}

void write_whole_file(const std::string& path, std::string_view content, Existing existing) {
  StagedPath staged(path);
  write_file(staged.path(), content);
  existing == Existing::kReplaced ? staged.commit() : staged.commit_new();
}

void remove_whole(const std::string& path) {
  const std::string temporary = temporary_name(path);
  std::error_code error;
  fs::rename(path, temporary, error);
  if (!error) {
    sync_folder(parent_folder(path));  // before a file of it goes
    fs::remove_all(temporary, error);
  }
  if (error)
    throw Error(printable_path(path), fmt::format("cannot be removed: {}", error.message()), "remove it by hand");
}

namespace {

std::vector<fs::path> stale_in(const std::string& folder, std::string_view prefix) {
  std::vector<fs::path> stale;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto made_by = maker(name);
    if (made_by && name.starts_with('.') && std::string_view(name).substr(1).starts_with(prefix) &&
        is_stale(*made_by, entry->path()))
      stale.push_back(entry->path());
  }
  return stale;
}

}  // namespace

void remove_stale(const std::string& folder, std::string_view prefix) {
  std::error_code error;
  for (const fs::path& path : stale_in(folder, prefix)) fs::remove_all(path, error);
}

bool has_stale(const std::string& folder, std::string_view prefix) {
  return !stale_in(folder, prefix).empty();
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

std::string host_name() {
  char name[65] = {};  // HOST_NAME_MAX and the terminating zero
  if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') return "localhost";
  std::string text = name;
  std::ranges::replace_if(
      text, [](unsigned char c) { return std::isalnum(c) == 0 && c != '.' && c != '_' && c != '-'; }, '_');
  return text;
}

std::string unguessable_word() {
  uint64_t bits = 0;
  MT_CHECK(getrandom(&bits, sizeof(bits), 0) == static_cast<ssize_t>(sizeof(bits)));
  return fmt::format("{:0{}x}", bits, kWordDigits);
}

}  // namespace mixtune
