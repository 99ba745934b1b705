#include "checkpoint/read_in_turn.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "checkpoint/read_ahead.h"
#include "tensor/memory.h"

namespace mixtune {

void read_in_turn(const std::vector<FileStretch>& stretches,
                  const std::function<void(size_t i, std::span<const std::byte> bytes)>& use,
                  const BytesDone& progress) {
  constexpr uint64_t kBlock = UncachedFile::kBlock;
  constexpr size_t kBuffers = 4;  // as many reads at once
  std::map<const InputFile*, UncachedFile> files;
  std::vector<ReadStretch> plan;
  uint64_t largest = kBlock, done = 0, all = 0;
  for (const auto& [file, begin, end] : stretches) {
    MT_CHECK(begin <= end && end - begin <= kMostInTurn);
    plan.push_back({&files.try_emplace(file, *file).first->second, begin, end});
    all += end - begin;
    largest = std::max(largest, align_up(end, kBlock) - begin / kBlock * kBlock);
  }
  const size_t buffers = std::clamp<size_t>(plan.size(), 1, kBuffers);
  const Memory memory("bytes being read", {}, buffers * largest + kBlock);
  auto* const ring = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uintptr_t>(memory.data()), kBlock));
  ReadAhead ahead({.stretches = std::move(plan),
                   .memory = {ring, buffers * largest},
                   .buffer_bytes = largest,
                   .threads = static_cast<int>(buffers),
                   .inspect = {}});
  for (size_t i = 0; i < stretches.size(); ++i) {
    use(i, ahead.next());
    ahead.release();
    done += stretches[i].end - stretches[i].begin;
    if (progress) progress(done, all);
  }
  for (const auto& [file, uncached] : files) file->check_unchanged();
}

}  // namespace mixtune
