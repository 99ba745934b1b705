// UncachedFile: reads a large file once, past the page cache, which would only cost time and memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/file.h"

namespace mixtune {

enum class PageCache { kPassedBy, kUsed };

// Its file stays open meanwhile. With PageCache::kUsed it is read as any other file, and the cache keeps it for who
// reads it next. Otherwise pages that are in the page cache are read from there. Where the file system refuses direct
// reads, pages are read through the cache and given back at once.
class UncachedFile {
 public:
  static constexpr uint64_t kBlock = 4096;  // direct reads begin and end at its multiples

  explicit UncachedFile(const InputFile& file, PageCache cache = PageCache::kPassedBy);
  ~UncachedFile();
  UncachedFile(const UncachedFile&) = delete;
  UncachedFile& operator=(const UncachedFile&) = delete;

  // Reads bytes [begin, end) on the calling thread; any number of threads may do so at once. `buffer` begins at a
  // multiple of kBlock and has room for all blocks that [begin, end) touches; the result lies in it. Throws Error.
  std::span<const std::byte> read(uint64_t begin, uint64_t end, std::span<std::byte> buffer) const;

 private:
  bool is_cached(uint64_t begin, size_t size) const;
  // These fill `buffer` from byte `begin` on. read_direct stops where it cannot go on, and returns what it read.
  size_t read_direct(uint64_t begin, size_t size, std::byte* buffer) const;
  void read_buffered(uint64_t begin, size_t size, std::byte* buffer, bool keep) const;

  const InputFile& file_;
  const bool uses_cache_;
  Fd direct_;
  void* pages_ = nullptr;  // a mapping, never touched, to ask what is cached; null: the kernel does not say
  mutable std::atomic<bool> direct_works_;
};

}  // namespace mixtune
