#include "checkpoint/stream.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/read_ahead.h"
#include "checkpoint/upload.h"
#include "tensor/fence.h"

namespace mixtune {

namespace {

constexpr uint64_t kBlock = UncachedFile::kBlock;
constexpr size_t kBuffers = 16;
constexpr size_t kReaders = 8;  // at once: what a fast drive, or several striped ones, need
constexpr size_t kCopying = 2;  // buffers that the device may be copying from

// The way from files to a device.
struct Way {
  uint64_t buffer_bytes;
  HostMemory memory;
  PageCache cache;
};

// On the CPU the processors' caches hold what is in the ring, and files are kept for the next command.
Way way_to(const Ctx& ctx) {
  if (ctx.gpu == nullptr) return {1 << 20, HostMemory::kPageable, PageCache::kUsed};
  return {16 << 20, HostMemory::kPinned, PageCache::kPassedBy};
}

using OpenFiles = std::map<const SafetensorsFile*, UncachedFile>;

// The part of a use in one stretch of a file, from byte `offset` of the stretch on.
struct Part {
  const StreamUse* use;
  uint64_t offset;
  Tensor to;

  DType dtype() const { return use->dtype; }
  std::span<const std::byte> of(std::span<const std::byte> stretch) const {
    return stretch.subspan(offset, static_cast<size_t>(to.elements()) * dtype_size(dtype()));
  }
};

// Stretches that fit into buffers, and the parts of each.
struct Cut {
  std::vector<ReadStretch> stretches;
  std::vector<std::vector<Part>> parts;

  uint64_t buffer_bytes() const {
    uint64_t largest = kBlock;
    for (const ReadStretch& s : stretches)
      largest = std::max(largest, align_up(s.end, kBlock) - s.begin / kBlock * kBlock);
    return largest;
  }
};

// Cuts the uses into stretches whose blocks fit into `most` bytes. Cuts no element in two.
Cut cut(const std::vector<StreamUse>& uses, const OpenFiles& files, uint64_t most) {
  Cut result;
  uint64_t limit = 0;  // of the last stretch: so far its buffer reaches
  for (const StreamUse& use : uses) {
    const UncachedFile* file = &files.at(use.file);
    const uint64_t size = dtype_size(use.dtype);
    const int64_t n = use.to.elements();
    for (int64_t done = 0; done < n;) {
      const uint64_t begin = use.begin + done * size;
      const bool goes_on = !result.stretches.empty() && result.stretches.back().file == file &&
                           result.stretches.back().end == begin && begin + size <= limit;
      if (!goes_on) {
        result.stretches.push_back({file, begin, begin});
        result.parts.emplace_back();
        limit = begin / kBlock * kBlock + most;
      }
      const auto count = std::min(n - done, static_cast<int64_t>((limit - begin) / size));
      ReadStretch& stretch = result.stretches.back();
      result.parts.back().push_back({&use, begin - stretch.begin, use.to.slice(done, count)});
      stretch.end = begin + count * size;
      done += count;
    }
  }
  return result;
}

void check_unchanged(const OpenFiles& files) {
  for (const auto& file : files) file.first->file().check_unchanged();
}

}  // namespace

void stream(Ctx& ctx, std::vector<StreamUse> uses, WrittenDigests written) {
  std::ranges::sort(uses, {}, [](const StreamUse& use) { return std::pair(use.file, use.begin); });
  const Way way = way_to(ctx);
  OpenFiles files;
  for (const StreamUse& use : uses) files.try_emplace(use.file, use.file->file(), way.cache);
  check_unchanged(files);
  const Cut work = cut(uses, files, way.buffer_bytes);
  const size_t stretches = work.stretches.size(), buffer_bytes = work.buffer_bytes();
  const size_t ring_bytes = std::clamp<size_t>(stretches, 1, kBuffers) * buffer_bytes;

  const Memory memory("weights being read", {}, ring_bytes + kBlock, way.memory);
  auto* const ring = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uintptr_t>(memory.data()), kBlock));
  const auto check_finite = [&](size_t stretch, std::span<const std::byte> bytes) {
    for (const Part& part : work.parts[stretch])
      if (!all_finite(part.of(bytes), part.dtype())) throw_not_finite(*part.use->file, *part.use->name);
  };
  ReadAhead read_ahead({.stretches = work.stretches,
                        .memory = {ring, ring_bytes},
                        .buffer_bytes = buffer_bytes,
                        .threads = static_cast<int>(std::min(stretches, kReaders)),
                        .inspect = check_finite});
  std::array<Fence, kCopying> copied;
  for (size_t i = 0; i < stretches; ++i) {
    if (i >= kCopying) {
      copied[i % kCopying].wait();
      read_ahead.release();
    }
    const std::span<const std::byte> bytes = read_ahead.next();
    for (const Part& part : work.parts[i]) upload(ctx, part.of(bytes), part.dtype(), part.to);
    copied[i % kCopying].set(ctx);
    written.add(*work.parts[i].front().use->file, work.stretches[i].begin, bytes);  // beside the copying
  }
  written.finish();
  wait(ctx);
  check_unchanged(files);
}

}  // namespace mixtune
