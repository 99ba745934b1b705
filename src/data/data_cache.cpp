#include "data/data_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/log.h"
#include "base/staged.h"
#include "data/cache_entry.h"
#include "data/cache_lock.h"
#include "data/indexed_sink.h"
#include "data/load_progress.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::hours kUnused{30 * 24};
constexpr std::string_view kLockEnding = ".lock";

// Takes note of a use: entries go by the time of their last one. Another user's cannot be noted.
void touch(const std::string& path) {
  utimensat(AT_FDCWD, path.c_str(), nullptr, AT_SYMLINK_NOFOLLOW);
}

class EntryMaker {
 public:
  EntryMaker(const std::string& folder, const std::string& key, const DataSource& source)
      : folder_(folder), path_(folder + "/" + key), lock_path_(path_ + std::string(kLockEnding)), source_(source) {}

  std::shared_ptr<const Documents> documents() {
    std::shared_ptr<const Documents> found;
    storing([&] { make_folder(); });
    while (!(found = open())) {
      std::optional<CacheLock> lock = storing([&] { return CacheLock::try_take(lock_path_); });
      if (!lock)
        wait();
      else if (!(found = open()))  // it may have come before the lock did
        make(*lock);
      if (found) break;
    }
    return found;
  }

 private:
  void make_folder() {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error)
      throw Error(printable_path(folder_), fmt::format("cannot be made: {}", error.message()), "set data_cache");
  }

  // Opens the entry. Null where there is none, or none that is whole.
  std::shared_ptr<const Documents> open() {
    if (!is_taken(path_)) return nullptr;
    try {
      const CacheEntry entry = open_entry(path_, source_.vocab_size, source_.max_seq_length);
      touch(path_);
      if (made_) return entry.documents;
      log_info("{}: from cache, {}", source_.name, printable_path(path_));
      for (const LogRecord::Line& line : entry.lines) log_text(line.level, line.text);
      return entry.documents;
    } catch (const Error& error) {
      if (!damage_said_ && is_taken(path_)) log_warning("cached data is damaged, and made again: {}", error.what());
      damage_said_ = true;
      return nullptr;
    }
  }

  // Waits until the lock is given up. While its owner says something, it is alive.
  void wait() {
    ProgressLine progress(source_.name + ", by another process");
    std::chrono::milliseconds pause{5};
    std::string said;
    do {
      std::this_thread::sleep_for(pause);
      if (storing([&] { return CacheLock::try_take(lock_path_); })) return;
      pause = std::min<std::chrono::milliseconds>(2 * pause, std::chrono::milliseconds(200));
      const std::string line = read_lock(lock_path_);
      if (line == said) continue;
      said = line;
      progress.show(line);
      if (source_.advanced) source_.advanced();
    } while (!is_taken(path_));
  }

  void make(CacheLock& lock) {
    if (is_taken(path_)) storing([&] { remove_whole(path_); });
    std::optional<StagedFolder> staged;
    storing([&] { staged.emplace(path_); });
    IndexedSink sink(entry_prefix(staged->path()), source_.vocab_size);
    LoadProgress progress(source_.name, [&](const std::string& line) {
      lock.say(line);
      if (source_.advanced) source_.advanced();
    });
    sink.on_progress(std::ref(progress));
    LogRecord record;
    source_.load(sink);
    sink.finish();
    storing([&] { seal_entry(staged->path(), sink, record.lines()); });
    try {
      storing([&] { staged->commit(); });
    } catch (const CannotStore&) {
      if (!is_taken(path_)) throw;  // else another process, where there are no locks, was faster
    }
    made_ = true;
    remove_unused();
  }

  // Removes unused entries, with their locks and the files' remembered hashes.
  void remove_unused() const {
    std::error_code error;
    for (fs::directory_iterator entry(folder_, error), end; !error && entry != end; entry.increment(error)) {
      struct stat status {};
      const std::string path = entry->path();
      if (path == path_ || path == lock_path_ || entry->path().filename().string().starts_with('.') ||
          lstat(path.c_str(), &status) != 0 ||
          std::chrono::system_clock::now() - std::chrono::system_clock::from_time_t(status.st_mtime) < kUnused)
        continue;
      remove_one(path);
    }
  }

  // Removes an entry under its lock, so that nobody makes it meanwhile. Its readers go on: their files are open.
  static void remove_one(const std::string& path) try {
    const bool is_lock = path.ends_with(kLockEnding);
    const auto lock = CacheLock::try_take(is_lock ? path : path + std::string(kLockEnding));
    if (lock) remove_whole(path);
  } catch (const Error&) {
    // It is another user's, or gone.
  }

  std::string folder_, path_, lock_path_;
  const DataSource& source_;
  bool made_ = false, damage_said_ = false;
};

}  // namespace

std::shared_ptr<const Documents> cached_documents(const std::string& folder, const std::string& key,
                                                  const DataSource& source) {
  return EntryMaker(folder, key, source).documents();
}

}  // namespace mixtune
