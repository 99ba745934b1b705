#include "data/gpt_sample.h"

#include <numeric>

#include "base/error.h"
#include "data/label.h"

namespace mixtune {

void check_masking(const GptMasking& masking, std::string_view where) {
  if (masking.reset_position_ids && !masking.reset_attention_mask)
    throw UserError(where,
                    "reset_position_ids without reset_attention_mask: documents would see each other at positions "
                    "that clash",
                    "set both to isolate documents, or neither");
}

void read_sample(const IndexedReader& reader, std::span<const WindowPart> parts, const GptMasking& masking,
                 GptSample& sample) {
  const int64_t tokens = std::accumulate(parts.begin(), parts.end(), int64_t{0},
                                         [](int64_t sum, const WindowPart& part) { return sum + part.count; });
  MT_CHECK(tokens >= 2);
  sample.ids.resize(static_cast<size_t>(tokens));
  sample.targets.resize(static_cast<size_t>(tokens));
  sample.begins.clear();
  int64_t begin = 0;
  for (const WindowPart& part : parts) {
    const auto count = static_cast<size_t>(part.count);
    const auto labels = std::span(sample.targets).subspan(static_cast<size_t>(begin), count);
    reader.read(part.sequence, part.begin, std::span(sample.ids).subspan(static_cast<size_t>(begin), count), labels);
    if (begin > 0 && masking.eod_mask_loss) labels[0] = kIgnoreTarget;
    // The last token of the window is only a target.
    if (begin == 0 || (masking.reset_attention_mask && begin < tokens - 1)) sample.begins.push_back(begin);
    begin += part.count;
  }
  shift_labels(sample.targets);
  sample.ids.pop_back();
  sample.targets.pop_back();
}

}  // namespace mixtune
