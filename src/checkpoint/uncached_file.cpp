#include "checkpoint/uncached_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

uint64_t block_start(uint64_t offset) {
  return offset / UncachedFile::kBlock * UncachedFile::kBlock;
}

// Opens the file again, past the page cache; none where the system has no such way.
Fd open_direct(const InputFile& file) {
  const std::string path = fmt::format("/proc/self/fd/{}", file.fd().get());
  return Fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_DIRECT));
}

// Whether mincore() tells the truth: to a process that may not write the file it calls every page resident.
bool may_see_cache(const InputFile& file) {
  struct stat status {};
  return fstat(file.fd().get(), &status) == 0 && (status.st_uid == geteuid() || access(file.path().c_str(), W_OK) == 0);
}

void* map_pages(const InputFile& file) {
  if (file.size() == 0 || !may_see_cache(file)) return nullptr;
  void* const pages = mmap(nullptr, file.size(), PROT_NONE, MAP_PRIVATE, file.fd().get(), 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

}  // namespace

UncachedFile::UncachedFile(const InputFile& file, PageCache cache)
    : file_(file),
      uses_cache_(cache == PageCache::kUsed),
      direct_(uses_cache_ ? Fd(-1) : open_direct(file)),
      pages_(uses_cache_ ? nullptr : map_pages(file)),
      direct_works_(direct_.get() >= 0) {}

UncachedFile::~UncachedFile() {
  if (pages_ != nullptr) munmap(pages_, file_.size());
}

std::span<const std::byte> UncachedFile::read(uint64_t begin, uint64_t end, std::span<std::byte> buffer) const {
  const uint64_t start = block_start(begin);
  const size_t size = end - start;
  MT_CHECK(begin <= end && block_start(size + UncachedFile::kBlock - 1) <= buffer.size());
  const bool cached = uses_cache_ || is_cached(start, size);
  const size_t done = cached ? 0 : read_direct(start, size, buffer.data());
  if (done < size) read_buffered(start + done, size - done, buffer.data() + done, cached);
  return buffer.subspan(begin - start, end - begin);
}

bool UncachedFile::is_cached(uint64_t begin, size_t size) const {
  if (pages_ == nullptr || begin + size > file_.size()) return false;
  const auto page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((size + page_size - 1) / page_size);
  return mincore(static_cast<char*>(pages_) + begin, size, pages.data()) == 0 &&
         std::ranges::all_of(pages, [](unsigned char page) { return (page & 1) != 0; });
}

size_t UncachedFile::read_direct(uint64_t begin, size_t size, std::byte* buffer) const {
  size_t done = 0;
  while (done < size && done % UncachedFile::kBlock == 0 && direct_works_) {
    const ssize_t n = pread(direct_.get(), buffer + done, block_start(size - done + UncachedFile::kBlock - 1),
                            static_cast<off_t>(begin + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) direct_works_ = false;  // for whatever reason: the buffered read that follows will name it
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return std::min(done, size);
}

void UncachedFile::read_buffered(uint64_t begin, size_t size, std::byte* buffer, bool keep) const {
  const auto advise = [&](int advice) {
    if (!keep) posix_fadvise(file_.fd().get(), static_cast<off_t>(begin), static_cast<off_t>(size), advice);
  };
  advise(POSIX_FADV_WILLNEED);
  file_.read(begin, {buffer, size});
  advise(POSIX_FADV_DONTNEED);
}

}  // namespace mixtune
