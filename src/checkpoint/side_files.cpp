#include "checkpoint/side_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json_value.h"
#include "base/log.h"

namespace mixtune {

namespace {

constexpr uint64_t kMaxBytes = uint64_t{64} << 20, kMaxBytesTogether = uint64_t{256} << 20;

constexpr auto kTokenizerFiles = std::to_array<std::string_view>(
    {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
     "vocab.json", "merges.txt", "chat_template.json"});
constexpr auto kPapers = std::to_array<std::string_view>(
    {"readme", "license", "licence", "copying", "notice", "provenance", "use_policy", "acceptable_use_policy"});

bool is_tokenizer_file(std::string_view name) {
  return std::ranges::find(kTokenizerFiles, name) != kTokenizerFiles.end() || name.ends_with(".jinja") ||
         name.starts_with("tokenizer.model.v") || (name.starts_with("tekken") && name.ends_with(".json")) ||
         name.ends_with(".tiktoken");
}

bool is_paper(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::ranges::any_of(kPapers, [&](std::string_view paper) { return lower.starts_with(paper); });
}

// Whether nobody misses the file in a checkpoint: every folder has one like it, or the checkpoint its own.
bool goes_without_saying(std::string_view name) {
  return name == "config.json" || name == "manifest.json" || name == ".gitattributes" || name == ".gitignore" ||
         name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
}

template <class Wanted>
std::vector<std::string> names(const std::string& folder, const Wanted& wanted) {
  std::vector<std::string> found = regular_files(folder);
  std::erase_if(found, [&](const std::string& name) { return !wanted(name); });
  return found;
}

}  // namespace

bool is_side_file(std::string_view name, SideFiles which) {
  if (is_tokenizer_file(name)) return true;
  return which == SideFiles::kAll && (name == "generation_config.json" || is_paper(name));
}

std::vector<std::string> side_file_names(const std::string& folder, SideFiles which) {
  return names(folder, [&](std::string_view name) { return is_side_file(name, which); });
}

std::vector<SideFile> read_side_files(const std::string& folder, SideFiles which) {
  std::vector<SideFile> files;
  uint64_t together = 0;
  for (const std::string& name : side_file_names(folder, which)) {
    const std::string path = folder + "/" + name;
    const auto leave_out = [&](std::string_view why) {
      log_warning("{}: {}: it will not be in checkpoints", printable_path(path), why);
    };
    if (leads_out(folder, name)) {
      leave_out("is a link that leads out of the model's folder");
      continue;
    }
    const InputFile file(path);
    if (file.size() > std::min(kMaxBytes, kMaxBytesTogether - together)) {
      leave_out(fmt::format("is too large for a side file, with {}", format_bytes(file.size())));
      continue;
    }
    together += file.size();
    files.push_back({name, file.read(0, file.size())});
    file.check_unchanged();
  }
  return files;
}

namespace {

SideFile* find(std::vector<SideFile>& files, std::string_view name) {
  const auto at = std::ranges::find(files, name, &SideFile::name);
  return at == files.end() ? nullptr : &*at;
}

void put(std::vector<SideFile>& files, const std::string& name, std::string content) {
  if (SideFile* file = find(files, name)) {
    file->content = std::move(content);
    return;
  }
  files.push_back({name, std::move(content)});
  std::ranges::sort(files, {}, &SideFile::name);
}

// The configuration of a LlamaTokenizer, which transformers makes of Mixtral's tokenizer.model.
nlohmann::ordered_json new_tokenizer_config(const TokenizerNames& names, bool has_model) {
  nlohmann::ordered_json config = {{"add_bos_token", true}, {"add_eos_token", false}};
  const auto add = [&](const char* key, const std::string& name) {
    if (!name.empty()) config[key] = name;
  };
  add("bos_token", names.bos);
  add("eos_token", names.eos);
  add("unk_token", names.unk);
  config["legacy"] = names.legacy;
  config["tokenizer_class"] = has_model ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  return config;
}

}  // namespace

void set_chat_template(std::vector<SideFile>& files, const std::string& source, const TokenizerNames& names) {
  constexpr const char *kConfig = "tokenizer_config.json", *kJinja = "chat_template.jinja";
  const bool has_model = find(files, "tokenizer.model");
  if (!has_model && !find(files, "tokenizer.json")) return;
  const SideFile* old = find(files, kConfig);
  auto config =
      old ? nlohmann::ordered_json::parse(old->content, nullptr, false) : new_tokenizer_config(names, has_model);
  const bool is_spaced = old && config.is_object() && !(config.contains("legacy") && config["legacy"] == false);
  const bool respaces = is_spaced && !names.legacy;
  if (respaces) config["legacy"] = false;
  if (!old || respaces ||
      (config.is_object() && config.contains("chat_template") && config["chat_template"] != source)) {
    config["chat_template"] = source;
    put(files, kConfig, config.dump(2) + "\n");
  }
  if (find(files, kJinja) || (old && !(config.is_object() && config.contains("chat_template"))))
    put(files, kJinja, source);
}

void report_left_out(const std::string& folder) {
  constexpr size_t kShown = 8;
  std::vector<std::string> left_out = names(
      folder, [](std::string_view name) { return !is_side_file(name, SideFiles::kAll) && !goes_without_saying(name); });
  if (left_out.empty()) return;
  const size_t more = left_out.size() - std::min(left_out.size(), kShown);
  left_out.resize(left_out.size() - more);
  for (std::string& name : left_out) name = printable(name, 60);
  log_info("{}: not copied into checkpoints: {}{}", printable_path(folder), fmt::join(left_out, ", "),
           more > 0 ? fmt::format(" and {} more", more) : "");
}

}  // namespace mixtune
