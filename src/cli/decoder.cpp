#include "cli/decoder.h"

#include <algorithm>
#include <numeric>

#include "checkpoint/load.h"

namespace mixtune {

Decoder::Decoder(const MixtralConfig& config, const std::string& folder, int64_t max_tokens)
    : instance_(config, Device{}, DType::kF32, State::Purpose::kInference), saved_(instance_.model().make_saved()) {
  const size_t rows = align_up(static_cast<size_t>(max_tokens), kRowAlignment);
  ids_.resize(rows);
  positions_.resize(rows);
  std::iota(positions_.begin(), positions_.end(), 0);
  doc_offsets_.resize(2);
  load_weights(HfFolder(folder), instance_.state());
}

std::vector<float> Decoder::logits(const std::vector<int32_t>& ids, int64_t count) {
  Ctx& ctx = instance_.ctx();
  const Mixtral& model = instance_.model();
  const int64_t vocab = model.config().vocab_size;
  const Stack::Frame frame(ctx.stack);
  const Batch document = batch(ids);
  const Tensor h = model.layers(ctx, document, model.all_layers(), model.embed(ctx, document, saved_), saved_, false);
  std::vector<float> logits(static_cast<size_t>(count * vocab));
  model.head_logits(ctx, h.slice(document.live_tokens - count, count), host_tensor(logits.data(), {count, vocab}));
  return logits;
}

Batch Decoder::batch(const std::vector<int32_t>& ids) {
  const auto live = static_cast<int64_t>(ids.size());
  const auto rows = static_cast<int64_t>(align_up(ids.size(), kRowAlignment));
  MT_CHECK(rows <= static_cast<int64_t>(ids_.size()));
  std::ranges::copy(ids, ids_.begin());
  doc_offsets_[1] = static_cast<int32_t>(live);
  // Positions run on into the dead tail, where nothing reads them.
  return {.ids = host_tensor(ids_.data(), {rows}),
          .positions = host_tensor(positions_.data(), {rows}),
          .doc_offsets = host_tensor(doc_offsets_.data(), {2}),
          .live_tokens = live};
}

}  // namespace mixtune
