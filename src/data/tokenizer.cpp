#include "data/tokenizer.h"

#include <filesystem>

#include "base/contained.h"
#include "base/error.h"
#include "data/sentencepiece_tokenizer.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

std::string model_path(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (fs::exists(path, ignored)) return path;
    throw UserError(printable(path, 200), "no such tokenizer",
                    "tokenizer_name_or_path takes a folder or file on this machine");
  }
  if (fs::exists(fs::path(path) / "tokenizer.model", ignored)) return path_within(path, "tokenizer.model");
  if (fs::exists(fs::path(path) / "tokenizer.json", ignored))
    throw UserError(printable(path, 200),
                    "has tokenizer.json but no tokenizer.model, the sentencepiece form that mixtune reads",
                    "fetch tokenizer.model from the model's hub page into this folder, or set tokenizer_name_or_path "
                    "to a folder that has it");
  throw UserError(printable(path, 200), "has no tokenizer.model", "set tokenizer_name_or_path to a folder that has it");
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path) {
  return open_sentencepiece_tokenizer(model_path(path));
}

}  // namespace mixtune
