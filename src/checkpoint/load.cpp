#include "checkpoint/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "base/error.h"
#include "checkpoint/added_rows.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/encode_weights.h"
#include "checkpoint/stream_weights.h"

namespace mixtune {

namespace {

// How many elements of each stored tensor the state asks for, over all ranks.
using Uses = std::unordered_map<const StoredTensor*, int64_t>;

Uses match(const HfFolder& folder, const State& state) {
  Uses uses;
  for (int param = 0; param < state.size(); ++param) {
    if (!is_stored(state, param)) continue;
    for (const auto& blocks : {state.spec(param).blocks, state.spec(param).elsewhere})
      for (const HfBlock& block : blocks)
        uses[folder.locate(block.name, block.stored_shape()).stored] += block.stored_elements();
  }
  return uses;
}

std::string_view without_model_prefix(std::string_view name) {
  constexpr std::string_view kPrefix = "model.";
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

bool same_bytes(const SafetensorsFile& a, const StoredTensor& x, const SafetensorsFile& b, const StoredTensor& y) {
  constexpr uint64_t kComparedBytes = 8 << 20;
  for (uint64_t done = 0; done < x.bytes(); done += kComparedBytes) {
    const uint64_t size = std::min(kComparedBytes, x.bytes() - done);
    if (a.file().read(x.begin + done, size) != b.file().read(y.begin + done, size)) return false;
  }
  return true;
}

// A checkpoint of a model with tied embeddings may still hold the head, if it is the same tensor.
bool is_tied_head(const HfFolder& folder, const SafetensorsFile& file, const StoredTensors::value_type& item) {
  const auto& [head_name, head] = item;
  if (head_name != "lm_head.weight" || head.four_bit) return false;
  for (const SafetensorsFile& other : folder.files())
    for (const auto& [name, tensor] : other.tensors()) {
      if (without_model_prefix(name) != "embed_tokens.weight") continue;
      return tensor.dtype_text == head.dtype_text && tensor.shape == head.shape && tensor.bytes() == head.bytes() &&
             same_bytes(file, head, other, tensor);
    }
  return false;
}

void check_unused(const HfFolder& folder, const Uses& uses) {
  for (const SafetensorsFile& file : folder.files())
    for (const auto& item : file.tensors()) {
      const auto& [name, tensor] = item;
      const auto use = uses.find(&tensor);
      if (use != uses.end() && use->second == tensor.shape.elements()) continue;
      const std::string where = printable_path(file.path());
      if (use != uses.end())
        throw UserError(
            where,
            fmt::format("tensor '{}' has shape {}, more experts than config.json", printable(name), tensor.shape.str()),
            "the weights and config.json are not of one model");
      if (!folder.lists(name) || name.ends_with("rotary_emb.inv_freq") || is_tied_head(folder, file, item)) continue;
      if (name == "lm_head.weight")
        throw UserError(where, "tensor 'lm_head.weight' differs from the embedding that config.json ties it to",
                        "set tie_word_embeddings to false in config.json");
      throw UserError(where, fmt::format("tensor '{}' has no place in the model", printable(name)),
                      "the weights and config.json are not of one model, or it is not a plain Mixtral");
    }
}

// The bytes that this rank reads.
uint64_t bytes_read(const HfFolder& folder, const State& state) {
  uint64_t bytes = 0;
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& slice : state.spec(param).blocks)
      if (const int64_t n = counted_part(state, param, slice).to.elements(); n > 0) {
        const FileStretch read = folder.stored(slice).stretch(0, n);
        bytes += read.end - read.begin;
      }
  return bytes;
}

}  // namespace

void check_weights(const HfFolder& folder, const State& state) {
  check_unused(folder, match(folder, state));
}

std::string LoadReport::str() const {
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  return fmt::format("{:.2f} GB in {:.2f} s, {:.2f} GB/s", gigabytes, seconds, gigabytes / seconds);
}

LoadReport load_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written) {
  const auto start = std::chrono::steady_clock::now();
  check_weights(folder, state);
  stream_weights(ctx, folder, state, written);
  encode_weights(ctx, folder, state);
  const uint64_t read_again = fill_added_rows(ctx, folder, state);
  for (int param = 0; param < state.size(); ++param) state.publish(ctx, param);
  state.share_weights(ctx);
  wait(ctx);
  return {bytes_read(folder, state) + encoded_bytes(folder, state) + read_again,
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
}

}  // namespace mixtune
