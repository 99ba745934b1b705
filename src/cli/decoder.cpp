#include "cli/decoder.h"

#include <algorithm>
#include <numeric>

#include "checkpoint/load.h"

namespace mixtune {

Decoder::Decoder(const MixtralConfig& config, const std::string& folder, int64_t max_tokens,
                 const InstanceOptions& options)
    : instance_(config, options), saved_(instance_.model().make_saved()) {
  const size_t rows = align_up(static_cast<size_t>(max_tokens), kRowAlignment);
  ids_.resize(rows);
  positions_.resize(rows);
  std::iota(positions_.begin(), positions_.end(), 0);
  doc_offsets_.resize(2);
  load_weights(instance_.ctx(), HfFolder(folder), instance_.state());
}

std::vector<float> Decoder::logits(const std::vector<int32_t>& ids, int64_t count) {
  Ctx& ctx = instance_.ctx();
  const Mixtral& model = instance_.model();
  const Frame frame(ctx);
  const Batch document = to_device(ctx, batch(ids));
  model.begin_batch(ctx, document, saved_);
  const Tensor h = model.layers(ctx, document, model.all_layers(), model.embed(ctx, document), saved_, false);
  const Shape shape = {count, model.config().vocab_size};
  const Tensor logits = ctx.stack.push("logits", shape, DType::kF32);
  model.head_logits(ctx, h.slice(document.live_tokens - count, count), logits);
  std::vector<float> host(static_cast<size_t>(shape.elements()));
  copy(ctx, logits, host_tensor(host.data(), shape));
  wait(ctx);
  return host;
}

Batch Decoder::batch(const std::vector<int32_t>& ids) {
  const auto live = static_cast<int64_t>(ids.size());
  const auto rows = static_cast<int64_t>(align_up(ids.size(), kRowAlignment));
  MT_CHECK(rows <= static_cast<int64_t>(ids_.size()));
  std::ranges::copy(ids, ids_.begin());
  doc_offsets_[1] = static_cast<int32_t>(live);
  const Tensor none = host_tensor(ids_.data(), {0});  // there is nothing to train
  // Positions run on into the dead tail, where nothing reads them.
  return {.ids = host_tensor(ids_.data(), {rows}),
          .positions = host_tensor(positions_.data(), {rows}),
          .target_rows = none,
          .targets = none,
          .doc_offsets = host_tensor(doc_offsets_.data(), {2}),
          .rows_by_id = {none, none, none},
          .host_doc_offsets = host_tensor(doc_offsets_.data(), {2}),
          .live_tokens = live};
}

}  // namespace mixtune
