#include "checkpoint/stream_values.h"

#include <algorithm>
#include <utility>

#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/upload.h"

namespace mixtune {

void ValueUses::add(const StoredValues& from, int64_t place, const Tensor& to, const std::string& name) {
  if (from.four_bit == nullptr) {
    values_.push_back({from.file, from.byte(place), from.dtype, to, &name});
    return;
  }
  constexpr uint64_t kMost = 1 << 20;  // bytes of values at once: what stream() takes of the stack on the CPU
  for (int64_t done = 0; done < to.elements(); done += from.at_once(kMost))
    coded_.push_back({from, place + done, to.slice(done, std::min(from.at_once(kMost), to.elements() - done)), &name});
}

void stream_values(Ctx& ctx, ValueUses uses, WrittenDigests written) {
  stream(ctx, std::move(uses.values_), std::move(written));
  std::ranges::sort(uses.coded_, {}, [](const auto& use) {
    return std::pair(use.from.file, use.from.stretch(use.place, use.to.elements()).begin);
  });
  std::vector<FileStretch> stretches;
  for (const auto& use : uses.coded_) stretches.push_back(use.from.stretch(use.place, use.to.elements()));
  std::vector<std::byte> buffer;
  read_in_turn(stretches, [&](size_t i, std::span<const std::byte> bytes) {
    const auto& [from, place, to, name] = uses.coded_[i];
    const std::span<const std::byte> values = from.values(place, to.elements(), bytes, buffer);
    if (!all_finite(values, from.dtype)) throw_not_finite(*from.file, *name);
    upload(ctx, values, from.dtype, to);
    wait(ctx);
  });
}

}  // namespace mixtune
