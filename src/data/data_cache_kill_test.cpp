// Kills the cache at each of its calls that change a file or folder: the test has versions of its own of these calls.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <set>

#include "data/data_cache.h"
#include "data/memory_documents.h"
#include "data/test_folder.h"

namespace {

int calls_left = 0;  // calls before the process is killed; 0: it is not

bool is_last_call() {
  return calls_left > 0 && --calls_left == 0;
}
void die() {
  kill(getpid(), SIGKILL);
}

}  // namespace

extern "C" {
ssize_t write(int fd, const void* bytes, size_t size) {
  const bool last = is_last_call();
  const ssize_t written = syscall(SYS_write, fd, bytes, last ? size / 2 : size);
  if (last) die();
  return written;
}
int fsync(int fd) {
  if (is_last_call()) die();
  return static_cast<int>(syscall(SYS_fsync, fd));
}
int rename(const char* from, const char* to) noexcept {
  if (is_last_call()) die();
  return static_cast<int>(syscall(SYS_rename, from, to));
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (is_last_call()) die();
  return static_cast<int>(syscall(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (is_last_call()) die();
  return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int unlink(const char* path) noexcept {
  if (is_last_call()) die();
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
}

namespace mixtune {
namespace {

void give_documents(DocumentSink& sink) {
  for (int32_t d = 0; d < 200; ++d) {
    const std::vector<int32_t> ids(static_cast<size_t>(2 + d % 30), d);
    std::vector<int32_t> labels = ids;
    labels[1] = d % 3 == 0 && ids.size() > 2 ? -100 : d;
    sink.append(ids, labels);
  }
}

std::shared_ptr<const Documents> open(const std::string& cache) {
  return cached_documents(cache, "key",
                          {.name = "data", .load = give_documents, .vocab_size = 300, .max_seq_length = 32});
}

// The signal that ended a process which opens the entry and is killed at its n-th call; 0: none.
int signal_at(int n, const std::string& cache) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    calls_left = n;
    open(cache);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(DataCacheKill, AtAnyCallLeavesItRebuiltOrWhole) {
  MemoryDocuments expected;
  give_documents(expected);
  int n = 1;
  for (bool killed = true; killed; ++n) {
    const TestFolder folder;
    const std::string cache = folder.path("cache");
    const int signal = signal_at(n, cache);
    killed = signal != 0;
    EXPECT_TRUE(signal == 0 || signal == SIGKILL);
    EXPECT_TRUE(same_documents(*open(cache), expected)) << "killed at call " << n;
    std::set<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(cache)) names.insert(file.path().filename());
    EXPECT_EQ(names, (std::set<std::string>{"key", "key.lock"})) << "killed at call " << n;
  }
  EXPECT_GT(n, 15);
}

}  // namespace
}  // namespace mixtune
