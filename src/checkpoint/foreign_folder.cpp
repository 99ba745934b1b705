#include "checkpoint/foreign_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string_view>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "checkpoint/adapter_config.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

// A kind of folder: it has a name with this start and end.
struct Kind {
  std::string_view start, end, what, mend;
};

constexpr auto kKinds = std::to_array<Kind>({
    {"", ".gguf", "holds a GGUF file, llama.cpp's format", "give the safetensors folder that it was made from"},
    {"consolidated.", "", "holds weights in Mistral's own format",
     "give the checkpoint in transformers' format: on the hub it is the same or a neighbouring repository"},
    {"params.json", "", "is a folder in Mistral's own format",
     "give the checkpoint in transformers' format: on the hub it is the same or a neighbouring repository"},
    {"pytorch_model", ".bin", "has no safetensors, only PyTorch's .bin files",
     "save the model with transformers' save_pretrained, which writes safetensors"},
    {"pytorch_model.bin.index.json", "", "has no safetensors, only PyTorch's .bin files",
     "save the model with transformers' save_pretrained, which writes safetensors"},
    {"tf_model", ".h5", "holds TensorFlow's weights",
     "save the model with transformers' save_pretrained, from PyTorch"},
    {"flax_model", ".msgpack", "holds Flax's weights",
     "save the model with transformers' save_pretrained, from PyTorch"},
    {"", ".onnx", "holds an ONNX model", "give the safetensors folder that it was made from"},
    {"modules.json", "", "is a sentence-transformers folder", "give the folder of a Mixtral model"},
    {"model_index.json", "", "is a diffusers pipeline", "give the folder of a Mixtral model"},
    {"latest_checkpointed_iteration.txt", "", "is a Megatron-LM checkpoint",
     "convert it to Hugging Face's format with Megatron's or NeMo's own exporter"},
    {"mp_rank_", "", "is a DeepSpeed checkpoint", "write Hugging Face's format with DeepSpeed's zero_to_fp32.py"},
    {"zero_to_fp32.py", "", "is a DeepSpeed checkpoint", "write Hugging Face's format with its zero_to_fp32.py"},
    {"snapshots", "", "is the hub cache's folder of a model", "give the folder of a revision in its snapshots/"},
});

Foreign adapter(const std::string& folder) {
  constexpr size_t kMaxBytes = 1 << 20;
  constexpr int kMaxDepth = 16;
  const std::string path = path_within(folder, kAdapterConfigFile);
  const nlohmann::json config = parse_json_object(read_small_file(path, kMaxBytes, "give a model's folder"),
                                                  printable(path, 200), "give a model's folder", kMaxDepth);
  const auto base = config.find("base_model_name_or_path");
  const bool named = base != config.end() && base->is_string();
  return {fmt::format("holds a PEFT adapter, not a model{}",
                      named ? fmt::format(" (its base: {})", printable(base->get_ref<const std::string&>(), 200)) : ""),
          "merge it into its base first ('mixtune merge BASE ADAPTER OUT'), and give that folder"};
}

}  // namespace

std::optional<Foreign> foreign_folder(const std::string& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.insert(entry->path().filename().string());
  if (names.contains(kAdapterConfigFile)) return adapter(folder);
  for (const Kind& kind : kKinds)
    if (std::ranges::any_of(
            names, [&](std::string_view name) { return name.starts_with(kind.start) && name.ends_with(kind.end); }))
      return Foreign{std::string(kind.what), std::string(kind.mend)};
  return {};
}

}  // namespace mixtune
