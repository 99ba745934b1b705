#include "data/tokenizer_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>
#include <map>
#include <utility>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

using nlohmann::json;
using Named = TokenizerConfig::Named;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr int kMaxConfigDepth = 32;
constexpr const char* kFetchConfig = "fetch it again from the model's hub page, or write it anew with transformers";

// The name in a string, or in an object's `content`.
std::string token_name(const json& value, std::string_view what, const std::string& where) {
  const json* text = &value;
  if (value.is_object() && value.contains("content")) text = &value["content"];
  if (!text->is_string() || text->get_ref<const std::string&>().empty())
    throw UserError(where, fmt::format("{} is not a token's name", printable(what)), kFetchConfig);
  return text->get<std::string>();
}

// One of the folder's files; errors in it name its path.
class File {
 public:
  File(const std::string& folder, const char* name) {
    std::error_code ignored;
    if (!std::filesystem::exists(std::filesystem::path(folder) / name, ignored)) return;
    const std::string path = path_within(folder, name);
    where_ = printable(path, 200);
    object_ =
        parse_json_object(read_small_file(path, kMaxConfigBytes, kFetchConfig), where_, kFetchConfig, kMaxConfigDepth);
  }

  explicit operator bool() const { return object_.is_object(); }
  const json& object() const { return object_; }
  const std::string& where() const { return where_; }

  const json* find(const char* key) const {
    const auto found = object_.is_object() ? object_.find(key) : object_.end();
    return !object_.is_object() || found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  [[noreturn]] void refuse(const std::string& what) const { throw UserError(where_, what, kFetchConfig); }

  int32_t id(uint64_t number, std::string_view name) const {
    if (number > std::numeric_limits<int32_t>::max())
      refuse(fmt::format("gives '{}' the id {}, which is no token's", printable(name), number));
    return static_cast<int32_t>(number);
  }

  std::optional<Named> role(const char* key) const {
    const json* value = find(key);
    return value ? std::optional(Named{token_name(*value, key, where_), where_}) : std::nullopt;
  }

 private:
  std::string where_;
  json object_;
};

std::vector<AddedToken> read_decoder(const File& file, const json& decoder) {
  if (!decoder.is_object()) file.refuse("'added_tokens_decoder' is not an object");
  std::vector<AddedToken> tokens;
  for (const auto& [key, value] : decoder.items()) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), number);
    if (key.empty() || error != std::errc() || end != key.data() + key.size())
      file.refuse(fmt::format("'{}' in added_tokens_decoder is not an id", printable(key)));
    tokens.push_back(read_added_token(value, file.id(number, key), file.where()));
  }
  return tokens;
}

std::vector<AddedToken> read_added_tokens(const File& file) {
  std::vector<AddedToken> tokens;
  for (const auto& [name, number] : file.object().items()) {
    if (name.empty() || !number.is_number_unsigned())
      file.refuse(fmt::format("the id of '{}' is not a whole number", printable(name)));
    tokens.push_back({.name = name, .id = file.id(number.get<uint64_t>(), name), .normalized = true});
  }
  return tokens;
}

void sort_unique(std::vector<AddedToken>& tokens, const std::string& where) {
  std::ranges::sort(tokens, {}, &AddedToken::id);
  std::map<std::string_view, int32_t> ids;
  for (const AddedToken& token : tokens) {
    const auto [other, added] = ids.emplace(token.name, token.id);
    if (!added)
      throw UserError(where, fmt::format("'{}' is both {} and {}", printable(token.name), other->second, token.id),
                      kFetchConfig);
  }
  for (size_t i = 1; i < tokens.size(); ++i)
    if (tokens[i].id == tokens[i - 1].id)
      throw UserError(where,
                      fmt::format("{} is both '{}' and '{}'", tokens[i].id, printable(tokens[i - 1].name),
                                  printable(tokens[i].name)),
                      kFetchConfig);
}

// Checks that `added` lists no token that `decoder` does not, and none under another id.
void check_agree(const File& added, const File& config, const std::vector<AddedToken>& decoder) {
  for (const AddedToken& token : read_added_tokens(added)) {
    const auto same = std::ranges::find(decoder, token.name, &AddedToken::name);
    if (same != decoder.end() && same->id == token.id) continue;
    const std::string there = same == decoder.end() ? "does not list it" : fmt::format("says {}", same->id);
    added.refuse(fmt::format("gives '{}' the id {}, added_tokens_decoder of {} {}", printable(token.name), token.id,
                             config.where(), there));
  }
}

std::optional<Named> agreed_role(const char* key, const File& config, const File& map, bool map_counts) {
  const std::optional<Named> here = config.role(key), there = map.role(key);
  if (here && there && here->name != there->name)
    map.refuse(fmt::format("says that {} is '{}', {} says '{}'", key, printable(there->name), config.where(),
                           printable(here->name)));
  return here || !map_counts ? here : there;
}

void add_named(const File& file, std::vector<Named>& special) {
  for (const char* key : {"unk_token", "pad_token", "sep_token", "cls_token", "mask_token"})
    if (auto named = file.role(key)) special.push_back({named->name, named->where, false});
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const json* list = file.find(key);
    if (!list || list->is_object()) continue;  // an object: names for the program, not for a text
    if (!list->is_array()) file.refuse(fmt::format("'{}' is not a list", key));
    for (const json& item : *list) special.push_back({token_name(item, key, file.where()), file.where()});
  }
}

}  // namespace

AddedToken read_added_token(const json& token, int32_t id, const std::string& where) {
  if (!token.is_object()) throw UserError(where, fmt::format("the token of id {} is not an object", id), kFetchConfig);
  AddedToken added{.name = token_name(token, fmt::format("the token of id {}", id), where), .id = id};
  const auto flag = [&](const char* key) {
    const auto found = token.find(key);
    if (found != token.end() && !found->is_boolean())
      throw UserError(where, fmt::format("'{}' of '{}' is neither true nor false", key, printable(added.name)),
                      kFetchConfig);
    return found != token.end() && found->get<bool>();
  };
  if (flag("single_word"))
    throw UserError(where, fmt::format("'{}' has single_word, which is not supported", printable(added.name)),
                    "set it to false, if the token may stand within a word");
  added.special = flag("special");
  added.lstrip = flag("lstrip");
  added.rstrip = flag("rstrip");
  added.normalized = flag("normalized");
  return added;
}

TokenizerConfig read_tokenizer_config(const std::string& folder) {
  const File config(folder, "tokenizer_config.json"), added(folder, "added_tokens.json"),
      map(folder, "special_tokens_map.json");
  TokenizerConfig result;
  const json* decoder = config.find("added_tokens_decoder");
  if (decoder) {
    result.added = read_decoder(config, *decoder);
    result.added_where = config.where();
    result.has_flags = true;
    if (added) check_agree(added, config, result.added);
  } else if (added) {
    result.added = read_added_tokens(added);
    result.added_where = added.where();
  }
  sort_unique(result.added, result.added_where);
  result.bos = agreed_role("bos_token", config, map, !decoder);
  result.eos = agreed_role("eos_token", config, map, !decoder);
  add_named(config, result.special);
  if (!decoder) add_named(map, result.special);
  if (const json* legacy = config.find("legacy")) {
    if (!legacy->is_boolean()) config.refuse("'legacy' is neither true nor false");
    result.legacy = legacy->get<bool>();
  }
  return result;
}

}  // namespace mixtune
