#include "model/end_of_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr const char* kName = "generation_config.json";
constexpr const char* kMend = "mend or remove it: the ids of config.json and of the tokeniser are enough";

std::vector<int32_t> generation_ids(const std::string& folder, int64_t vocab_size) {
  constexpr size_t kMaxBytes = 1 << 20;
  constexpr int kMaxDepth = 16;
  const std::string path = path_within(folder, kName), where = printable_path(path);
  const json config = parse_json_object(read_small_file(path, kMaxBytes, kMend), where, kMend, kMaxDepth);
  const json value = config.value("eos_token_id", json());
  if (value.is_null()) return {};
  const json list = value.is_array() ? value : json::array({value});
  std::vector<int32_t> ids;
  for (const json& id : list) {
    const bool sound = id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
    if (!sound)
      throw UserError(where,
                      fmt::format("eos_token_id has {}, not a token of the model's vocabulary of {}",
                                  printable(id.dump(), 40), vocab_size),
                      kMend);
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

std::vector<int32_t> end_of_text_ids(const std::string& folder, const MixtralConfig& config) {
  std::vector<int32_t> ids = config.eos_token_ids;
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(folder) / kName, error)) {
    const std::vector<int32_t> more = generation_ids(folder, config.vocab_size);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace mixtune
