#include "generate/decoder.h"

#include <algorithm>

#include "kernels/moe/permute.h"

namespace mixtune {

namespace {

InstanceOptions with_cache(InstanceOptions options, const CacheRoom& room) {
  options.cache = room;
  return options;
}

// The room for all sequences at once; one is there in any case, for the batch of nothing.
BatchRoom batch_room(const CacheRoom& room, Device device) {
  const int64_t sequences = std::max<int64_t>(room.sequences, 1);
  return {.tokens = sequences * room.positions,
          .documents = sequences,
          .cached = true,
          .row_multiple = device.type == DeviceType::kCpu ? 1 : kRowAlignment};
}

}  // namespace

Decoder::Decoder(const MixtralConfig& config, const ModelPaths& paths, const CacheRoom& room,
                 const InstanceOptions& options)
    : instance_(config, with_cache(with_adapter(options, paths, config), room)),
      saved_(instance_.model().make_saved()),
      builder_(batch_room(room, options.device)),
      lengths_(static_cast<size_t>(room.sequences)) {
  load_model(instance_, paths);
}

std::vector<float> Decoder::extend(std::span<const Extension> extensions) {
  Ctx& ctx = instance_.ctx();
  const Frame frame(ctx);
  std::vector<int32_t> last_rows;
  int32_t rows = 0;
  MT_CHECK(!extensions.empty() || ranks().grid.world > 1);
  builder_.begin();
  for (const auto& [sequence, ids] : extensions) {
    int64_t& length = lengths_[static_cast<size_t>(sequence)];
    const auto count = static_cast<int64_t>(ids.size());
    MT_CHECK(length + count <= room().positions);
    builder_.add_to_sequence(ids, sequence, length);
    length += count;
    rows += static_cast<int32_t>(count);
    last_rows.push_back(rows - 1);
  }
  Batch batch = builder_.finish();
  if (extensions.empty()) batch.sequences = {};
  const Tensor h = forward(batch);
  if (extensions.empty()) return {};
  const Shape shape = {static_cast<int64_t>(last_rows.size())};
  const Tensor wanted = ctx.stack.push("last rows", shape, DType::kI32);
  copy(ctx, host_tensor(last_rows.data(), shape), wanted);
  const Tensor last = ctx.stack.push("last tokens", {shape[0], h.shape[1]}, h.dtype);
  permute_rows(ctx, h, wanted, 1, last);
  return head(last);
}

void Decoder::cut(int64_t sequence, int64_t tokens) {
  MT_CHECK(tokens >= 0 && tokens <= length(sequence));
  lengths_[static_cast<size_t>(sequence)] = tokens;
}

std::vector<float> Decoder::logits(std::span<const int32_t> ids) {
  const Frame frame(instance_.ctx());
  builder_.begin();
  builder_.add_document(ids, {});
  Batch document = builder_.finish();
  document.sequences = {};
  return head(forward(document).slice(0, document.live_tokens));
}

bool Decoder::any(bool here) {
  if (ranks().grid.world == 1) return here;
  constexpr const char* kWhat = "texts that go on";
  Ctx& ctx = instance_.ctx();
  const Frame frame(ctx);
  int32_t count = here;
  const Tensor host = host_tensor(&count, {1}), sum = ctx.stack.push(kWhat, {1}, DType::kI32);
  copy(ctx, host, sum);
  ranks().all->all_reduce(ctx, kWhat, sum);
  wait(ctx);  // with patience: a copy to pageable memory would wait for the others in the driver
  copy(ctx, sum, host);
  wait(ctx);
  return count > 0;
}

std::vector<std::string> Decoder::gather(const std::string& text) {
  if (ranks().grid.world == 1) return {text};
  return gather_texts(instance_.ctx(), *ranks().all, "texts", text);
}

Tensor Decoder::forward(const Batch& batch) {
  Ctx& ctx = instance_.ctx();
  const Mixtral& model = instance_.model();
  const Batch here = to_device(ctx, batch);
  model.begin_batch(ctx, here, saved_);
  return model.layers(ctx, here, model.all_layers(), model.embed(ctx, here), saved_, false);
}

std::vector<float> Decoder::head(const Tensor& h) {
  Ctx& ctx = instance_.ctx();
  const Shape shape = {h.rows(), vocab_size()};
  const Tensor logits = ctx.stack.push("logits", shape, DType::kF32);
  instance_.model().head_logits(ctx, h, logits);
  std::vector<float> host(static_cast<size_t>(shape.elements()));
  copy(ctx, logits, host_tensor(host.data(), shape));
  wait(ctx);
  return host;
}

}  // namespace mixtune
