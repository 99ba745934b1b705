// read_in_turn: the bytes of files, stretch by stretch, read ahead of the thread that uses them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/file.h"
#include "base/progress_line.h"

namespace mixtune {

// Bytes [begin, end) of a file that outlives the reading: at most kMostInTurn of them.
struct FileStretch {
  const InputFile* file;
  uint64_t begin, end;
};

constexpr uint64_t kMostInTurn = 16 << 20;

// Calls `use(i, bytes)` with the bytes of each stretch, in their order, on the calling thread; they are valid during
// that call. After each, `progress`, if any, is told how far it is. Takes 64 MiB of host memory, whatever the size of
// the files. Throws what `use` does, and Error where a file cannot be read or has changed since it was opened.
void read_in_turn(const std::vector<FileStretch>& stretches,
                  const std::function<void(size_t i, std::span<const std::byte> bytes)>& use,
                  const BytesDone& progress = {});

}  // namespace mixtune
