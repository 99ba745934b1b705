#include "checkpoint/read_ahead.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>

#include "checkpoint/test_model.h"
#include "tensor/memory.h"

namespace mixtune {
namespace {

constexpr size_t kBlock = UncachedFile::kBlock;
constexpr size_t kBufferBytes = 4 * kBlock;

std::string random_bytes(size_t size, uint64_t key) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(random_bits(key, i));
  return bytes;
}

// Drops a file from the page cache, where the file system has a disk below it.
void evict(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  fsync(fd.get());
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
}

size_t cached_pages(const InputFile& file) {
  std::vector<unsigned char> pages(file.size() / kBlock + 1);
  void* const mapped = mmap(nullptr, file.size(), PROT_NONE, MAP_PRIVATE, file.fd().get(), 0);
  mincore(mapped, file.size(), pages.data());
  munmap(mapped, file.size());
  return static_cast<size_t>(std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; }));
}

class ReadAheadTest : public testing::Test {
 protected:
  const UncachedFile& add_file(size_t size, PageCache cache = PageCache::kPassedBy) {
    contents_.push_back(random_bytes(size, 1000 * contents_.size()));
    const std::string path = folder_ / fmt::format("file{}", contents_.size());
    put(path, contents_.back());
    opened_.emplace_back(path);
    return files_.emplace_back(opened_.back(), cache);
  }

  ReadPlan plan(std::vector<ReadStretch> stretches, size_t buffers, int threads) {
    return {.stretches = std::move(stretches),
            .memory = {reinterpret_cast<std::byte*>(memory_.data()), buffers * kBufferBytes},
            .buffer_bytes = kBufferBytes,
            .threads = threads};
  }

  std::string expected(const ReadStretch& stretch) const {
    const size_t file = static_cast<size_t>(
        std::ranges::find(files_, stretch.file, [](const UncachedFile& f) { return &f; }) - files_.begin());
    return contents_[file].substr(stretch.begin, stretch.end - stretch.begin);
  }

  static std::string text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  // Expects the right bytes with up to `held` stretches in use at a time.
  void expect_reads(const std::vector<ReadStretch>& stretches, size_t buffers, int threads, size_t held) {
    ReadAhead ahead(plan(stretches, buffers, threads));
    std::deque<std::span<const std::byte>> in_use;
    size_t first = 0;
    for (size_t i = 0; i < stretches.size(); ++i) {
      if (in_use.size() == held) {
        ASSERT_TRUE(text(in_use.front()) == expected(stretches[first])) << "stretch " << first;
        in_use.pop_front();
        ++first;
        ahead.release();
      }
      in_use.push_back(ahead.next());
      ASSERT_TRUE(text(in_use.back()) == expected(stretches[i])) << "stretch " << i;
    }
  }

  // Stretches of any offsets and lengths that a buffer has room for.
  std::vector<ReadStretch> odd_stretches(const UncachedFile& file, size_t size, uint64_t key) const {
    std::vector<ReadStretch> stretches = {{&file, 0, 1}, {&file, size - 1, size}, {&file, size, size}};
    for (uint64_t i = 0; i < 200; ++i) {
      const uint64_t begin = random_bits(key, 2 * i) % size;
      const uint64_t room = begin / kBlock * kBlock + kBufferBytes - begin;
      stretches.push_back({&file, begin, std::min(size, begin + random_bits(key, 2 * i + 1) % (room + 1))});
    }
    return stretches;
  }

  TempFolder folder_;
  Memory memory_{"test", {}, 64 * kBufferBytes};
  std::vector<std::string> contents_;
  std::deque<InputFile> opened_;
  std::deque<UncachedFile> files_;
};

TEST_F(ReadAheadTest, AnyStretchesOfSeveralFiles) {
  std::vector<ReadStretch> stretches;
  for (const size_t size : {size_t{1}, kBlock, 100 * kBlock, 50 * kBlock + 1, 70 * kBlock - 3})
    for (const ReadStretch& stretch : odd_stretches(add_file(size), size, size)) stretches.push_back(stretch);
  for (const bool cached : {true, false})
    for (const auto& [buffers, threads, held] :
         {std::array<size_t, 3>{1, 1, 1}, {1, 4, 1}, {3, 1, 2}, {2, 8, 2}, {16, 8, 3}}) {
      for (const InputFile& file : opened_)
        if (!cached) evict(file.path());
      expect_reads(stretches, buffers, static_cast<int>(threads), held);
    }
}

// Reading brings nothing into the page cache, and drives nothing out of it.
TEST_F(ReadAheadTest, LeavesThePageCacheAsItWas) {
  constexpr size_t kSize = 256 * kBlock;
  const UncachedFile& file = add_file(kSize);
  std::vector<ReadStretch> stretches;
  for (size_t begin = 0; begin < kSize; begin += kBufferBytes)
    stretches.push_back({&file, begin, begin + kBufferBytes});
  expect_reads(stretches, 8, 4, 1);
  EXPECT_EQ(cached_pages(opened_[0]), kSize / kBlock);
  evict(opened_[0].path());
  if (cached_pages(opened_[0]) > 0) GTEST_SKIP() << "this file system lives in the page cache";
  expect_reads(stretches, 8, 4, 1);
  EXPECT_EQ(cached_pages(opened_[0]), 0u);
}

TEST_F(ReadAheadTest, MayKeepWhatItReads) {
  constexpr size_t kSize = 256 * kBlock;
  const UncachedFile& file = add_file(kSize, PageCache::kUsed);
  evict(opened_[0].path());
  std::vector<ReadStretch> stretches;
  for (size_t begin = 0; begin < kSize; begin += kBufferBytes)
    stretches.push_back({&file, begin, begin + kBufferBytes});
  expect_reads(stretches, 8, 4, 1);
  EXPECT_EQ(cached_pages(opened_[0]), kSize / kBlock);
}

TEST_F(ReadAheadTest, ErrorsReachTheUserOfTheirStretch) {
  const UncachedFile& file = add_file(100 * kBlock);
  std::vector<ReadStretch> stretches;
  for (size_t i = 0; i < 20; ++i) stretches.push_back({&file, i * kBlock, (i + 1) * kBlock});
  ReadPlan faulty = plan(stretches, 4, 3);
  faulty.inspect = [&](size_t stretch, std::span<const std::byte> bytes) {
    EXPECT_EQ(text(bytes), expected(stretches[stretch]));
    if (stretch == 11) throw UserError("here", "is bad", "mend it");
  };
  ReadAhead ahead(std::move(faulty));
  for (size_t i = 0; i < 11; ++i) {
    EXPECT_EQ(text(ahead.next()), expected(stretches[i]));
    ahead.release();
  }
  expect_user_error([&] { ahead.next(); }, {"here: is bad"});
}

TEST_F(ReadAheadTest, ACutFileIsAnErrorThatNamesThePlace) {
  const UncachedFile& file = add_file(100 * kBlock);
  std::filesystem::resize_file(opened_[0].path(), 50 * kBlock + 7);
  ReadAhead ahead(plan({{&file, 48 * kBlock, 50 * kBlock}, {&file, 50 * kBlock, 53 * kBlock}}, 2, 2));
  EXPECT_EQ(text(ahead.next()), contents_[0].substr(48 * kBlock, 2 * kBlock));
  try {
    ahead.next();
    FAIL();
  } catch (const Error& error) {
    const std::string line = error.what();
    EXPECT_NE(line.find(fmt::format("{}: changed while it was read: it ends at byte {} of {}", opened_[0].path(),
                                    50 * kBlock + 7, 100 * kBlock)),
              std::string::npos)
        << line;
  }
}

TEST_F(ReadAheadTest, EndsWithReadsUnderWay) {
  const UncachedFile& file = add_file(100 * kBlock);
  std::vector<ReadStretch> stretches(1000, {&file, 0, kBufferBytes});
  for (int i = 0; i < 20; ++i) {
    ReadAhead ahead(plan(stretches, 8, 8));
    if (i % 2 == 0) ahead.next();
  }
}

TEST_F(ReadAheadTest, AFileThatWasRemoved) {
  const UncachedFile& file = add_file(10 * kBlock);
  std::filesystem::remove(opened_[0].path());
  expect_reads({{&file, 0, 3 * kBlock}}, 1, 1, 1);
}

}  // namespace
}  // namespace mixtune
