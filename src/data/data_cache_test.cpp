#include "data/data_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <set>
#include <thread>

#include "base/log.h"
#include "data/cache_lock.h"
#include "data/indexed_sink.h"
#include "data/memory_documents.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr int64_t kCachedVocab = 100, kLongest = 40;
constexpr const char* kKey = "0123456789abcdef";

void give_documents(DocumentSink& sink, int32_t count) {
  for (int32_t d = 0; d < count; ++d) {
    const auto length = static_cast<size_t>(1 + d * 7 % kLongest);
    std::vector<int32_t> ids(length, d % kCachedVocab), labels(length, d % 3 ? d % kCachedVocab : -100);
    labels.back() = ids.back();
    d % 5 == 4 ? sink.append_piece(ids, labels) : sink.append(ids, labels);
  }
}

class DataCacheTest : public testing::Test {
 protected:
  DataSource source(int32_t count = 500) {
    return {.name = "data",
            .load =
                [this, count](DocumentSink& sink) {
                  ++loads_;
                  give_documents(sink, count);
                  log_warning("{} documents of the test", count);
                },
            .vocab_size = kCachedVocab,
            .max_seq_length = kLongest};
  }

  // Opens an entry, and keeps what is logged in log_.
  std::shared_ptr<const Documents> open(const DataSource& from) {
    testing::internal::CaptureStderr();
    try {
      auto documents = cached_documents(cache_, kKey, from);
      log_ = testing::internal::GetCapturedStderr();
      return documents;
    } catch (...) {
      log_ = testing::internal::GetCapturedStderr();
      throw;
    }
  }

  void expect_right(const Documents& documents, int32_t count = 500) {
    MemoryDocuments expected;
    give_documents(expected, count);
    EXPECT_TRUE(same_documents(documents, expected));
    EXPECT_EQ(documents.digest(), expected.digest());
  }

  std::string entry(std::string_view name = "") const { return cache_ + "/" + kKey + std::string(name); }

  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& file : fs::directory_iterator(cache_)) found.insert(file.path().filename());
    return found;
  }

  TestFolder folder_;
  std::string cache_ = folder_.path("cache/data");
  std::string log_;
  int loads_ = 0;
};

TEST_F(DataCacheTest, IsMadeOnceAndSaysTheSameAgain) {
  expect_right(*open(source()));
  EXPECT_THAT(log_, HasSubstr("warning: 500 documents of the test\n"));
  EXPECT_THAT(log_, Not(HasSubstr("from cache")));
  expect_right(*open(source()));
  EXPECT_EQ(loads_, 1);
  EXPECT_THAT(log_, testing::StartsWith("mixtune: data: from cache, " + entry()));
  EXPECT_THAT(log_, HasSubstr("warning: 500 documents of the test\n"));
  EXPECT_EQ(names(), (std::set<std::string>{kKey, std::string(kKey) + ".lock"}));
}

TEST_F(DataCacheTest, WhatTheDataThrowsLeavesNothing) {
  DataSource bad = source();
  bad.load = [](DocumentSink& sink) {
    give_documents(sink, 300);
    throw UserError("line 7", "is malformed", "mend it");
  };
  EXPECT_THAT(user_error([&] { open(bad); }), HasSubstr("is malformed"));
  EXPECT_EQ(names(), (std::set<std::string>{std::string(kKey) + ".lock"}));
  expect_right(*open(source()));
}

// Each file of an entry is cut at several places, missing, or has a changed byte where it is checked.
TEST_F(DataCacheTest, ADamagedEntryIsMadeAgain) {
  open(source());
  int damaged = 0;
  for (const char* name : {"/data.idx", "/data.bin", "/data.mask", "/seal.json"}) {
    const std::string whole = TestFolder::read(entry(name));
    ASSERT_GT(whole.size(), 100u);
    std::vector<std::string> contents = {"", whole.substr(0, 1), whole.substr(0, whole.size() / 2),
                                         whole.substr(0, whole.size() - 1), whole + "x"};
    if (std::string_view(name) == "/data.idx" || std::string_view(name) == "/seal.json")
      for (const size_t place : {size_t{0}, whole.size() / 3, whole.size() - 2}) {
        contents.push_back(whole);
        contents.back()[place] ^= 1;
      }
    for (const std::string& content : contents) {
      std::ofstream(entry(name), std::ios::binary) << content;
      expect_right(*open(source()));
      EXPECT_EQ(loads_, ++damaged + 1) << name << ", " << content.size() << " bytes of " << whole.size();
      EXPECT_THAT(log_, HasSubstr("warning: cached data is damaged, and made again: "));
      EXPECT_EQ(TestFolder::read(entry(name)), whole);
    }
    fs::remove(entry(name));
    expect_right(*open(source()));
    EXPECT_EQ(loads_, ++damaged + 1) << name;
  }
}

TEST_F(DataCacheTest, WhatCannotBeWrittenIsSaid) {
  folder_.write("file", "");
  cache_ = folder_.path("file/data");
  EXPECT_THROW(open(source()), CannotStore);
  expect_right(*uncached_documents(source()));
}

TEST_F(DataCacheTest, UnusedEntriesGoAfterThirtyDays) {
  const auto age = [](const std::string& path, int days) {
    const timespec time{.tv_sec = std::time(nullptr) - days * 24 * 3600};
    const timespec times[2] = {time, time};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  };
  cached_documents(cache_, "old", source());
  cached_documents(cache_, "used", source());
  cached_documents(cache_, "young", source());
  for (const char* name : {"/old", "/used", "/young", "/old.lock", "/used.lock", "/young.lock"})
    age(cache_ + name, std::string_view(name).starts_with("/young") ? 29 : 31);
  const auto held = cached_documents(cache_, "old", source());  // a use
  age(cache_ + "/old", 31);
  cached_documents(cache_, "used", source());
  open(source());
  EXPECT_THAT(names(), testing::AllOf(testing::Not(testing::Contains("old")), testing::Contains("used"),
                                      testing::Contains("young"), testing::Contains(kKey)));
  expect_right(*held);  // its files are open
}

class DataCacheProcesses : public DataCacheTest {
 protected:
  // Starts a process that opens the entry. It calls `before_document` before each document that it loads.
  pid_t start(const std::function<void(int32_t)>& before_document) {
    std::fflush(nullptr);
    const pid_t child = fork();
    if (child != 0) return child;
    DataSource from = source();
    from.load = [&](DocumentSink& sink) {
      std::ofstream(folder_.path("loads"), std::ios::app) << "x";
      MemoryDocuments all;
      give_documents(all, 500);
      for (int32_t d = 0; d < 500; ++d) before_document(d);
      give_documents(sink, 500);
    };
    try {
      const auto documents = cached_documents(cache_, kKey, from);
      MemoryDocuments expected;
      give_documents(expected, 500);
      _exit(same_documents(*documents, expected) ? 0 : 3);
    } catch (...) {
      _exit(4);
    }
  }
  static int wait_for(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  }
};

TEST_F(DataCacheProcesses, SeveralAtOnceMakeItOnce) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i)
    children.push_back(start([](int32_t d) {
      if (d % 50 == 0) usleep(20'000);
    }));
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  EXPECT_EQ(TestFolder::read(folder_.path("loads")), "x");
}

TEST_F(DataCacheProcesses, WhoeverWaitsForOneThatDiesMakesIt) {
  const pid_t first = start([](int32_t) { pause(); });
  while (TestFolder::read(folder_.path("loads")).empty()) usleep(1000);
  std::thread killer([&] {
    usleep(300'000);
    kill(first, SIGKILL);
    wait_for(first);
  });
  expect_right(*open(source()));
  killer.join();
  EXPECT_EQ(loads_, 1);
  EXPECT_EQ(names(), (std::set<std::string>{kKey, std::string(kKey) + ".lock"}));  // the dead one's files are gone
}

TEST_F(DataCacheProcesses, WhatTheOtherSaysIsASignOfLife) {
  fs::create_directories(cache_);
  std::optional<CacheLock> lock = CacheLock::try_take(entry(".lock"));
  ASSERT_TRUE(lock);
  EXPECT_FALSE(CacheLock::try_take(entry(".lock")));
  std::atomic<int> signs = 0;
  DataSource from = source();
  from.advanced = [&] {
    ++signs;
  };
  std::thread other([&] {
    for (int i = 0; signs < 3; ++i, usleep(30'000)) lock->say(std::to_string(i));
    lock.reset();
  });
  expect_right(*cached_documents(cache_, kKey, from));
  other.join();
  EXPECT_GE(signs, 3);
}

}  // namespace
}  // namespace mixtune
