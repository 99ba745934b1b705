// Any bytes as indexed data: refused with a UserError, or sequences and windows that can be read. An input is the sizes
// of the .idx and of the .bin (u16, little-endian), these two, the .mask if anything is left, and the
// .weights from where that begins.
#include <algorithm>
#include <array>

#include "data/batch.h"
#include "data/gpt_sample.h"
#include "data/indexed_reader.h"
#include "data/label.h"
#include "data/weights.h"
#include "memory_file.h"

namespace {

using namespace mixtune;

constexpr int64_t kVocab = 1000;

void read_sequences(const IndexedReader& reader) {
  int64_t sequence = 0, tokens = 0;
  for (int64_t d = 0; d < reader.documents(); ++d) {
    MT_CHECK(reader.document_begin(d) == sequence);
    for (; sequence < reader.document_begin(d + 1); ++sequence) {
      MT_CHECK(reader.document_of(sequence) == d);
      std::vector<int32_t> ids(reader.length(sequence)), labels(ids.size());
      reader.read(sequence, 0, ids, labels);
      std::vector<float> weights(ids.size());
      reader.read_weights(sequence, 0, weights);
      for (size_t i = 0; i < ids.size(); ++i)
        MT_CHECK(ids[i] >= 0 && ids[i] < kVocab && (labels[i] == ids[i] || labels[i] == kIgnoreTarget) &&
                 (labels[i] == ids[i] ? is_weight(weights[i]) : weights[i] == 0));
      tokens += static_cast<int64_t>(ids.size());
    }
  }
  MT_CHECK(sequence == reader.sequences() && tokens == reader.tokens());
}

void read_windows(const IndexedReader& reader) {
  std::vector<int32_t> lengths(reader.sequences());
  reader.lengths(0, lengths);
  const GptWindows windows(lengths, {0, reader.sequences()}, {.seq_length = 1 + reader.tokens() % 61}, "fuzz");
  std::vector<WindowPart> parts;
  GptSample sample;
  for (int64_t i = 0; i < windows.size(); ++i) {
    windows.window(i, parts);
    read_sample(reader, parts, {.reset_attention_mask = true, .eod_mask_loss = true}, sample);
    MT_CHECK(static_cast<int64_t>(sample.ids.size()) == 1 + reader.tokens() % 61);
    MT_CHECK(sample.ids.size() == sample.targets.size() && std::ranges::is_sorted(sample.begins));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static MemoryFile idx, bin, mask, weights;
  std::span<const uint8_t> rest(data, size);
  const auto take = [&](size_t count) {
    const auto taken = rest.first(std::min(count, rest.size()));
    rest = rest.subspan(taken.size());
    return taken;
  };
  if (size < 4) return 0;
  const auto sizes = take(4);
  IndexedInputs inputs{InputFile(idx.fill(take(sizes[0] + 256u * sizes[1]))),
                       InputFile(bin.fill(take(sizes[2] + 256u * sizes[3]))), std::nullopt};
  const auto weights_begin = static_cast<size_t>(
      std::search(rest.begin(), rest.end(), kWeightsMagic.begin(), kWeightsMagic.end()) - rest.begin());
  if (weights_begin < rest.size()) inputs.weights.emplace(weights.fill(rest.subspan(weights_begin)));
  if (weights_begin > 0) inputs.mask.emplace(mask.fill(rest.first(weights_begin)));
  try {
    const IndexedReader reader(std::move(inputs), kVocab);
    read_sequences(reader);
    read_windows(reader);
  } catch (const UserError&) {
  }
  return 0;
}
