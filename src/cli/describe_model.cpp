#include "cli/describe_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/side_files.h"
#include "model/mixtral_config.h"

namespace mixtune {

namespace {

std::string count(int64_t n) {
  if (n < 1'000'000) return std::to_string(n);
  const auto x = static_cast<double>(n);
  return n < 1'000'000'000 ? fmt::format("{} ({:.2f} M)", n, x * 1e-6) : fmt::format("{} ({:.2f} B)", n, x * 1e-9);
}

std::string dtypes(const HfFolder& folder) {
  std::map<std::string, int64_t> tensors;
  for (const SafetensorsFile& file : folder.files())
    for (const auto& [name, tensor] : file.tensors()) ++tensors[printable(tensor.dtype_text, 16)];
  std::string text;
  for (const auto& [dtype, n] : tensors) text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", n, dtype);
  return text;
}

std::string parameters(const HfFolder& folder, const MixtralConfig& c) {
  int64_t all = 0;
  for (const SafetensorsFile& file : folder.files())
    for (const auto& [name, tensor] : file.tensors()) all += tensor.shape.elements();
  const int64_t idle_experts = c.num_local_experts - c.num_experts_per_tok;
  const int64_t idle = c.num_hidden_layers * idle_experts * 3 * c.hidden_size * c.intermediate_size;
  return fmt::format("{}, {} active for a token", count(all), count(std::max<int64_t>(all - idle, 0)));
}

std::string tokenizer(const std::vector<std::string>& side) {
  const auto has = [&](const char* name) {
    return std::ranges::binary_search(side, name);
  };
  if (has("tokenizer.model")) return "tokenizer.model";
  return has("tokenizer.json") ? "tokenizer.json only (mixtune reads tokenizer.model)" : "none";
}

}  // namespace

std::string describe_checkpoint(const std::string& folder_path) {
  const MixtralConfig c = load_mixtral_config(folder_path);
  const HfFolder folder(folder_path);
  std::vector<std::string> files, side = side_file_names(folder_path, SideFiles::kAll);
  for (const SafetensorsFile& file : folder.files()) files.push_back(std::filesystem::path(file.path()).filename());
  for (std::string& name : side) name = printable(name);
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("{:<12} {}\n", name, value);
  };
  line("model", fmt::format("Mixtral, {} layers, hidden {}, vocabulary {}{}", c.num_hidden_layers, c.hidden_size,
                            c.vocab_size, c.tie_word_embeddings ? ", tied embeddings" : ""));
  line("attention",
       fmt::format("{} heads, {} key-value heads, head_dim {}, RoPE base {}, {}", c.num_attention_heads,
                   c.num_key_value_heads, c.head_dim, c.rope_theta,
                   c.sliding_window > 0 ? fmt::format("sliding window {}", c.sliding_window) : "no sliding window"));
  line("experts", fmt::format("{} a layer, {} for a token, intermediate {}", c.num_local_experts, c.num_experts_per_tok,
                              c.intermediate_size));
  if (!is_of_transformers(c.router_scores, c.num_experts_per_tok, c.num_local_experts))
    line("router", fmt::format("{}: {}", describe(c.router_scores), kUnknownToTransformers));
  line("positions", std::to_string(c.max_position_embeddings));
  line("parameters", parameters(folder, c));
  line("tensors", fmt::format("{} ({})", dtypes(folder), folder.packed() ? "packed layout" : "hub layout"));
  line("weights", fmt::format("{} in {}", format_bytes(folder.bytes()), fmt::join(files, ", ")));
  line("side files", fmt::format("{}", fmt::join(side, ", ")));
  line("tokenizer", tokenizer(side));
  return text;
}

std::string describe_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  uint64_t bytes = 0;
  std::string text;
  for (const auto& [name, tensor] : file.tensors()) {
    text +=
        fmt::format("{:<8} {:<20} {}\n", printable(tensor.dtype_text, 16), tensor.shape.str(), printable(name, 200));
    bytes += tensor.bytes();
  }
  return text + fmt::format("{} tensors, {}\n", file.tensors().size(), format_bytes(bytes));
}

}  // namespace mixtune
