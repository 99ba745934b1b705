#include "checkpoint/uncached_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr uint64_t kBlock = UncachedFile::kBlock;

uint64_t block_start(uint64_t offset) {
  return offset / kBlock * kBlock;
}

// mincore() calls every page resident to those who may not write the file.
bool may_see_cache(int fd, const std::string& path) {
  struct stat status {};
  return fstat(fd, &status) == 0 && (status.st_uid == geteuid() || access(path.c_str(), W_OK) == 0);
}

}  // namespace

UncachedFile::UncachedFile(const MappedFile& mapped)
    : mapped_(mapped),
      buffered_(open(mapped.path().c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)),
      direct_(open(mapped.path().c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_DIRECT)),
      shows_cache_(may_see_cache(buffered_.get(), mapped.path())),
      direct_works_(direct_.get() >= 0) {
  if (buffered_.get() < 0)
    throw UserError(printable(mapped.path(), 400), fmt::format("cannot be opened: {}", std::strerror(errno)),
                    "check the path");
}

std::span<const std::byte> UncachedFile::read(uint64_t begin, uint64_t end, std::span<std::byte> buffer) const {
  const uint64_t start = block_start(begin);
  const size_t size = end - start;
  MT_CHECK(begin <= end && block_start(size + kBlock - 1) <= buffer.size());
  const bool cached = is_cached(start, size);
  const size_t done = cached ? 0 : read_direct(start, size, buffer.data());
  if (done < size) read_buffered(start + done, size - done, buffer.data() + done, cached);
  return buffer.subspan(begin - start, end - begin);
}

bool UncachedFile::is_cached(uint64_t begin, size_t size) const {
  if (!shows_cache_ || begin + size > mapped_.bytes().size()) return false;
  const auto page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> pages((size + page_size - 1) / page_size);
  char* first = const_cast<char*>(mapped_.bytes().data()) + begin;
  return mincore(first, size, pages.data()) == 0 &&
         std::ranges::all_of(pages, [](unsigned char page) { return (page & 1) != 0; });
}

size_t UncachedFile::read_direct(uint64_t begin, size_t size, std::byte* buffer) const {
  size_t done = 0;
  while (done < size && done % kBlock == 0 && direct_works_) {
    const ssize_t n =
        pread(direct_.get(), buffer + done, block_start(size - done + kBlock - 1), static_cast<off_t>(begin + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) direct_works_ = false;  // for whatever reason: the buffered read that follows will name it
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  return std::min(done, size);
}

void UncachedFile::read_buffered(uint64_t begin, size_t size, std::byte* buffer, bool keep) const {
  const auto offset = static_cast<off_t>(begin);
  if (!keep) posix_fadvise(buffered_.get(), offset, static_cast<off_t>(size), POSIX_FADV_WILLNEED);
  for (size_t done = 0; done < size;) {
    const ssize_t n = pread(buffered_.get(), buffer + done, size - done, offset + static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(printable(mapped_.path(), 400),
                  fmt::format("cannot be read at byte {}: {}", begin + done, std::strerror(errno)), "check the disk");
    if (n == 0)
      throw Error(printable(mapped_.path(), 400),
                  fmt::format("ends at byte {} of {}: it was cut while it was being read", begin + done,
                              mapped_.bytes().size()),
                  "get it again, and leave it alone while it is read");
    done += static_cast<size_t>(n);
  }
  if (!keep) posix_fadvise(buffered_.get(), offset, static_cast<off_t>(size), POSIX_FADV_DONTNEED);
}

}  // namespace mixtune
