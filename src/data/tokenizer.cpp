#include "data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/contained.h"
#include "base/error.h"
#include "data/json_tokenizer.h"
#include "data/sentencepiece_tokenizer.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

bool is_json(const fs::path& file) {
  return file.extension() == ".json";
}

std::unique_ptr<Tokenizer> open_file(const std::string& path) {
  return is_json(path) ? open_json_tokenizer(path) : open_sentencepiece_tokenizer(path);
}

// Throws unless both are of one model.
void check_same_pieces(const Tokenizer& json, const Tokenizer& model) {
  const int32_t size = std::min(json.vocab_size(), model.vocab_size());
  for (int32_t id = 0; id < size; ++id)
    if (json.piece(id) != model.piece(id))
      throw UserError(printable(json.path(), 200),
                      fmt::format("says that {} is '{}', {} beside it says '{}'", id, printable(json.piece(id)),
                                  fs::path(model.path()).filename().string(), printable(model.piece(id))),
                      "remove the one that is not this model's");
  if (json.vocab_size() != model.vocab_size())
    throw UserError(printable(json.path(), 200),
                    fmt::format("has {} tokens, {} beside it has {}", json.vocab_size(),
                                fs::path(model.path()).filename().string(), model.vocab_size()),
                    "remove the one that is not this model's");
}

[[noreturn]] void refuse_folder(const std::string& folder) {
  std::error_code ignored;
  const auto has = [&](const char* name) {
    return fs::exists(fs::path(folder) / name, ignored);
  };
  const std::string where = printable(folder, 200), mend = "set tokenizer_name_or_path to a folder that has it";
  if (has("tekken.json"))
    throw UserError(where,
                    "has tekken.json alone, a tokeniser that is not supported: tokenizer.json of Mistral's kind "
                    "and tokenizer.model are",
                    "use a model with one of these, as all of Mixtral's family that are not tekken's");
  if (has("vocab.json")) throw UserError(where, "has vocab.json but neither tokenizer.json nor tokenizer.model", mend);
  throw UserError(where, "has no tokenizer.model", mend);
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (fs::exists(path, ignored)) return open_file(path);
    throw UserError(printable(path, 200), "no such tokenizer",
                    "tokenizer_name_or_path takes a folder or file on this machine");
  }
  const auto open_in_folder = [&](const char* name) -> std::unique_ptr<Tokenizer> {
    return fs::exists(fs::path(path) / name, ignored) ? open_file(path_within(path, name)) : nullptr;
  };
  std::unique_ptr<Tokenizer> json = open_in_folder("tokenizer.json"), model = open_in_folder("tokenizer.model");
  if (json && model) check_same_pieces(*json, *model);
  if (!json && !model) refuse_folder(path);
  return json ? std::move(json) : std::move(model);
}

}  // namespace mixtune
