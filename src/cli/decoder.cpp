#include "cli/decoder.h"

namespace mixtune {

Decoder::Decoder(const MixtralConfig& config, const ModelPaths& paths, int64_t max_tokens,
                 const InstanceOptions& options)
    : instance_(config, with_adapter(options, paths, config)),
      saved_(instance_.model().make_saved()),
      builder_(BatchRoom{.tokens = max_tokens, .documents = 1}) {
  load_model(instance_, paths);
}

std::vector<float> Decoder::logits(const std::vector<int32_t>& ids, int64_t count) {
  Ctx& ctx = instance_.ctx();
  const Mixtral& model = instance_.model();
  const Frame frame(ctx);
  builder_.begin();
  builder_.add_document(ids, {});
  const Batch document = to_device(ctx, builder_.finish());
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

}  // namespace mixtune
