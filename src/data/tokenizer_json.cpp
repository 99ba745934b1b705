#include "data/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/json_value.h"
#include "data/tokenizer_config.h"

namespace mixtune {

namespace {

using nlohmann::json;
using Step = SpaceNormalizer::Step;

constexpr int kMaxTokenizerDepth = 16;
constexpr std::ptrdiff_t kMaxValues = 8 << 20;  // of the whole file; Mixtral's has 150,000
constexpr size_t kMaxPieces = 1 << 20, kMaxPieceBytes = 1024;
constexpr const char* kFetchTokenizer = "fetch it again from the model's hub page";

class Reader {
 public:
  Reader(std::string_view text, const std::string& where) : where_(where) {
    if (std::ranges::count(text, ',') > kMaxValues) refuse(fmt::format("holds more than {} values", kMaxValues));
    root_ = parse_json_object(text, where, kFetchTokenizer, kMaxTokenizerDepth);
  }

  TokenizerJson read() {
    check_keys(root_, "the file",
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                "decoder", "model"});
    for (const char* key : {"truncation", "padding"})
      if (find(root_, key)) unsupported(fmt::format("'{}' that is set", key));
    read_model(member(root_, "the file", "model"));
    if (const json* normalizer = find(root_, "normalizer")) read_normalizer(*normalizer);
    if (const json* tokenizer = find(root_, "pre_tokenizer")) read_pre_tokenizer(*tokenizer);
    if (const json* decoder = find(root_, "decoder")) read_decoder(*decoder);
    if (const json* processor = find(root_, "post_processor"))
      if (const std::string type = type_of(*processor, "post_processor"); type != "TemplateProcessing")
        unsupported("post_processor", type);
    if (const json* added = find(root_, "added_tokens")) read_added(*added);
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const { throw UserError(where_, what, kFetchTokenizer); }

  [[noreturn]] void unsupported(const std::string& what) const {
    throw UserError(where_, fmt::format("has {}, which is not supported: only Mistral's kind is", what),
                    "name a folder without tokenizer.json, or its tokenizer.model, if it has one");
  }
  [[noreturn]] void unsupported(std::string_view part, std::string_view value) const {
    unsupported(fmt::format("{} '{}'", part, printable(value)));
  }

  static const json* find(const json& object, const char* key) {  // null counts as absent
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
  }

  const json& member(const json& object, std::string_view what, const char* key) const {
    const json* value = find(object, key);
    if (!value) refuse(fmt::format("{} has no '{}'", what, key));
    return *value;
  }

  void check_keys(const json& object, std::string_view what, std::initializer_list<const char*> known) const {
    if (!object.is_object()) refuse(fmt::format("{} is not an object", what));
    for (const auto& item : object.items())
      if (std::ranges::find(known, item.key()) == known.end())
        unsupported(fmt::format("'{}' in {}", printable(item.key()), what));
  }

  bool flag(const json& object, const char* key, bool otherwise) const {
    const json* value = find(object, key);
    if (value && !value->is_boolean()) refuse(fmt::format("'{}' is neither true nor false", key));
    return value ? value->get<bool>() : otherwise;
  }

  std::string text(const json& object, std::string_view what, const char* key) const {
    const json& value = member(object, what, key);
    if (!value.is_string()) refuse(fmt::format("'{}' of {} is not text", key, what));
    return value.get<std::string>();
  }

  std::string type_of(const json& object, std::string_view what) const {
    if (!object.is_object()) refuse(fmt::format("{} is not an object", what));
    return text(object, what, "type");
  }

  const json& list(const json& object, std::string_view what, const char* key) const {
    const json& value = member(object, what, key);
    if (!value.is_array()) refuse(fmt::format("'{}' of {} is not a list", key, what));
    return value;
  }

  void read_model(const json& model) {
    if (const std::string type = type_of(model, "model"); type != "BPE") unsupported("model", type);
    check_keys(model, "model",
               {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (const json* dropout = find(model, "dropout"); dropout && *dropout != 0) unsupported("'dropout' that is set");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const json* value = find(model, key); value && *value != "")
        unsupported(fmt::format("'{}' that is set", key));
    result_.model.fuse_unk = flag(model, "fuse_unk", false);
    result_.model.ignore_merges = flag(model, "ignore_merges", false);
    read_vocabulary(member(model, "model", "vocab"));
    read_unknown(model);
    for (const json& merge : list(model, "model", "merges")) read_merge(merge);
  }

  void read_vocabulary(const json& vocab) {
    if (!vocab.is_object()) refuse("'vocab' is not an object");
    std::vector<std::string>& pieces = result_.model.pieces;
    if (vocab.size() > kMaxPieces) refuse(fmt::format("has more than {} pieces", kMaxPieces));
    pieces.resize(vocab.size());
    for (const auto& [piece, id] : vocab.items()) {
      if (piece.empty() || piece.size() > kMaxPieceBytes)
        refuse(fmt::format("has a piece of {} bytes, '{}'", piece.size(), printable(piece)));
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= pieces.size())
        refuse(fmt::format("the id of the piece '{}' is none of 0 to {}", printable(piece), pieces.size() - 1));
      std::string& place = pieces[id.get<size_t>()];
      if (!place.empty())
        refuse(fmt::format("the pieces '{}' and '{}' have one id, {}", printable(place), printable(piece),
                           id.get<size_t>()));
      place = piece;
    }
    for (size_t id = 0; id < pieces.size(); ++id) ids_.emplace(pieces[id], static_cast<int32_t>(id));
  }

  std::optional<int32_t> id_of(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  // Characters without a piece become bytes, else the unknown token; tokenizers drops those that can become neither.
  void read_unknown(const json& model) {
    if (flag(model, "byte_fallback", false)) {
      for (int byte = 0; byte < 256; ++byte)
        if (!id_of(fmt::format("<0x{:02X}>", byte)))
          refuse(fmt::format("'byte_fallback' is true, but there is no piece <0x{:02X}>", byte));
      return;
    }
    const std::string unknown = text(model, "model", "unk_token");
    const std::optional<int32_t> id = id_of(unknown);
    if (!id) refuse(fmt::format("'unk_token' '{}' is not a piece", printable(unknown)));
    result_.model.unk = *id;
  }

  // Reads ["a", "b"], or "a b" as older files have it.
  void read_merge(const json& merge) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view both = merge.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space == both.npos || both.find(' ', space + 1) != both.npos)
        refuse(fmt::format("the merge '{}' is not two pieces", printable(both)));
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else {
      if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string())
        refuse(fmt::format("merge {} is not two pieces", result_.model.merges.size()));
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    const auto known = [&](std::string_view piece) {
      const std::optional<int32_t> id = id_of(piece);
      if (!id)
        refuse(fmt::format("merge {} needs '{}', which is not a piece", result_.model.merges.size(), printable(piece)));
      return *id;
    };
    result_.model.merges.push_back({known(left), known(right), known(std::string(left).append(right))});
  }

  void read_normalizer(const json& normalizer) {
    const std::string type = type_of(normalizer, "normalizer");
    if (type == "Sequence") {
      for (const json& step : list(normalizer, "normalizer", "normalizers")) {
        if (type_of(step, "normalizer") == "Sequence") unsupported("normalizer", "Sequence in a Sequence");
        read_normalizer(step);
      }
    } else if (type == "Prepend" && text(normalizer, type, "prepend") == kSpaceMark) {
      result_.normalizer.push_back(Step::kPrepend);
    } else if (type == "Replace") {
      const json& pattern = member(normalizer, type, "pattern");
      const std::string content = text(normalizer, type, "content");
      if (pattern == json::object({{"String", " "}}) && content == kSpaceMark)
        result_.normalizer.push_back(Step::kReplaceSpaces);
      else if (pattern == json::object({{"Regex", fmt::format("\\A{}", kSpaceMark)}}) &&
               content == fmt::format("{}{}", kSpaceMark, kSpaceMark))
        result_.normalizer.push_back(Step::kDoubleFirst);
      else
        unsupported("normalizer", normalizer.dump());
    } else {
      unsupported("normalizer", type == "Prepend" ? normalizer.dump() : type);
    }
  }

  void read_pre_tokenizer(const json& tokenizer) {
    const std::string type = type_of(tokenizer, "pre_tokenizer");
    if (type == "Sequence") {
      for (const json& step : list(tokenizer, "pre_tokenizer", "pretokenizers")) read_metaspace(step);
    } else {
      read_metaspace(tokenizer);
    }
  }

  void read_metaspace(const json& tokenizer) {
    const std::string type = type_of(tokenizer, "pre_tokenizer");
    if (type != "Metaspace") unsupported("pre_tokenizer", type);
    if (result_.has_metaspace) unsupported("pre_tokenizer", "Metaspace, twice");
    check_keys(tokenizer, type, {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
    check_mark(tokenizer, "pre_tokenizer");
    using Prepend = TokenizerJson::Metaspace::Prepend;
    const bool adds = flag(tokenizer, "add_prefix_space", true);
    const std::string scheme = find(tokenizer, "prepend_scheme") ? text(tokenizer, type, "prepend_scheme")
                               : adds                            ? "always"
                                                                 : "never";
    if (scheme != "always" && scheme != "first" && scheme != "never") unsupported("prepend_scheme", scheme);
    if (!adds && scheme != "never") refuse("'add_prefix_space' is false, but 'prepend_scheme' is not 'never'");
    result_.has_metaspace = true;
    result_.metaspace.prepend = scheme == "always"  ? Prepend::kAlways
                                : scheme == "first" ? Prepend::kFirst
                                                    : Prepend::kNever;
    result_.metaspace.split = flag(tokenizer, "split", true);
  }

  void check_mark(const json& part, std::string_view what) const {
    if (const std::string mark = text(part, what, "replacement"); mark != kSpaceMark)
      unsupported(fmt::format("{} Metaspace with replacement", what), mark);
  }

  void read_decoder(const json& decoder) {
    const std::string type = type_of(decoder, "decoder");
    if (type == "Metaspace") {
      check_mark(decoder, "decoder");
      const json* scheme = find(decoder, "prepend_scheme");
      result_.strips_first_space = flag(decoder, "add_prefix_space", true) && !(scheme && *scheme == "never");
      return;
    }
    if (type != "Sequence") unsupported("decoder", type);
    const json strip = json::object({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    const json mark = json::object({{"String", kSpaceMark}});
    const json replace = json::object({{"type", "Replace"}, {"pattern", mark}, {"content", " "}});
    result_.strips_first_space = false;
    for (const json& step : list(decoder, "decoder", "decoders")) {
      const std::string name = type_of(step, "decoder");
      if (name == "Strip" && step == strip)
        result_.strips_first_space = true;
      else if (name == "Strip" || (name == "Replace" && step != replace))
        unsupported("decoder", step.dump());
      else if (name != "Replace" && name != "ByteFallback" && name != "Fuse")
        unsupported("decoder", name);
    }
  }

  void read_added(const json& added) {
    if (!added.is_array()) refuse("'added_tokens' is not a list");
    for (const json& token : added) {
      if (!token.is_object()) refuse("a token of 'added_tokens' is not an object");
      const json& id = member(token, "a token of 'added_tokens'", "id");
      if (!id.is_number_unsigned() || id.get<uint64_t>() > 2 * kMaxPieces)
        refuse("the id of a token of 'added_tokens' is no token's");
      result_.added.push_back(read_added_token(token, id.get<int32_t>(), where_));
    }
  }

  const std::string& where_;
  json root_;
  TokenizerJson result_;
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where) {
  return Reader(text, where).read();
}

}  // namespace mixtune
