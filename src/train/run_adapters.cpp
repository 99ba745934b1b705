#include "train/run_adapters.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/log.h"
#include "base/xxh3.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/convert.h"
#include "checkpoint/load.h"
#include "checkpoint/load_adapter.h"
#include "model/pissa.h"
#include "run/resume.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

void say_took(const Instance& instance, const std::string& what, Clock::time_point start) {
  if (instance.ranks().grid.rank == 0)
    log_info("pissa: {} in {:.1f} s", what, std::chrono::duration<double>(Clock::now() - start).count());
}

void begin_anew(Instance& instance, uint64_t seed) {
  const Lora& lora = instance.options().lora;
  if (!lora.pissa) return initialise_adapters(instance.ctx(), seed, instance.state());
  const Clock::time_point start = Clock::now();
  initialise_principal_adapters(instance.ctx(), seed, lora.scale, instance.state());
  say_took(instance, fmt::format("the largest {} singular values of each weight found", lora.rank), start);
}

}  // namespace

void begin_adapters(const Config& config, Instance& instance, const StoredFiles& written) {
  const std::string checkpoint = checkpoint_of(config), &given = config.adapter.adapter_name_or_path;
  const Lora& lora = instance.options().lora;
  if (checkpoint.empty() && given.empty()) {
    begin_anew(instance, config.machine.seed);
  } else {
    const std::string& path = checkpoint.empty() ? given : checkpoint;
    load_adapter(instance.ctx(), path, {.scale = lora.scale}, instance.state(), written);
    if (instance.ranks().grid.rank == 0) log_info("loaded the adapter {}", printable_path(path));
  }
  if (!lora.pissa) return;
  const Clock::time_point start = Clock::now();
  take_off_principal_pairs(instance.ctx(), lora.scale, instance.state());
  say_took(instance, "what pairs began as taken off the weights", start);
}

namespace {

// What an adapter asks of a model that has its pairs beside its weights, and its whole weights for some.
Lora lora_of(const AdapterFolder& adapter) {
  Lora lora;
  for (const AdapterPair& pair : adapter.pairs()) {
    const std::string module = pair.module.substr(pair.module.rfind('.') + 1);
    bool* const has = module == "q_proj"         ? &lora.q
                      : module == "k_proj"       ? &lora.k
                      : module == "v_proj"       ? &lora.v
                      : module == "o_proj"       ? &lora.out
                      : module == "gate"         ? &lora.gate
                      : module == "embed_tokens" ? &lora.embedding
                      : module == "lm_head"      ? &lora.head
                      : module.size() == 2       ? &lora.experts  // w1, w2, w3
                                                 : nullptr;
    if (has == nullptr)
      throw UserError(printable_path(adapter.path()), fmt::format("has a pair of {}", pair.module),
                      "merge it into its base first: mixtune merge");
    *has = true;
    lora.rank = std::max(lora.rank, pair.rank);
    if (pair.scaling != 0) lora.scale = pair.scaling;
  }
  for (const AdapterWhole& whole : adapter.whole()) lora.whole.push_back(whole.module);
  return lora;
}

// Adds the values of up to kSampled elements from `place` on, as fp32 numbers.
constexpr int64_t kSampled = 64;  // whole blocks of a tensor in 4 bits
void add_sample(const StoredValues& stored, int64_t place, int64_t elements, Xxh3& digest) {
  const int64_t count = std::min(kSampled, elements - place);
  const FileStretch stretch = stored.stretch(place, count);
  std::vector<std::byte> bytes(stretch.end - stretch.begin), buffer;
  stretch.file->read(stretch.begin, bytes);
  std::vector<float> values(static_cast<size_t>(count));
  decode(stored.values(place, count, bytes, buffer), stored.dtype, host_tensor(values.data(), {count}));
  digest.add(std::as_bytes(std::span(values)));
}

}  // namespace

std::string sample_digest(const HfFolder& folder, const MixtralConfig& shape) {
  const State base = meta_state(shape);
  Xxh3 digest;
  for (int param = 0; param < base.size(); ++param)
    for (const HfBlock& block : base.spec(param).blocks) {
      const int64_t elements = block.stored_elements(), last = (elements - 1) / kSampled * kSampled;
      const StoredValues stored = folder.stored(block);
      for (const int64_t place : {int64_t{0}, last / 2 / kSampled * kSampled, last})
        add_sample(stored, place, elements, digest);
    }
  return digest.take();
}

InstanceOptions with_adapter(InstanceOptions options, const ModelPaths& paths, const MixtralConfig& shape) {
  if (paths.adapter.empty()) return options;
  const BasePrecision base = options.lora.base;
  options.lora = lora_of(AdapterFolder(paths.adapter, base_shapes(meta_state(shape))));
  options.lora.base = base;
  if (options.device.type == DeviceType::kCuda) options.lora.rank = (options.lora.rank + 7) / 8 * 8;
  return options;
}

void load_model(Instance& instance, const ModelPaths& paths) {
  load_weights(instance.ctx(), HfFolder(paths.base), instance.state());
  if (paths.adapter.empty()) return;
  load_adapter(instance.ctx(), paths.adapter, {.scale = instance.options().lora.scale, .pads = true}, instance.state());
}

SaveOptions to_save_adapters(SaveOptions model, const Config& config, const Lora& lora) {
  model.what = SaveOptions::What::kAdapters;
  model.dtype = DType::kF32;  // that of the masters: a run goes on as it was
  model.config_json = format_adapter_config({.base = config.model.model_name_or_path,
                                             .r = lora.saved_rank(),
                                             .alpha = lora.scale * static_cast<double>(lora.saved_rank()),
                                             .target_modules = lora.modules(),
                                             .modules_to_save = lora.whole});
  return model;
}

}  // namespace mixtune
