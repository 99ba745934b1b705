#include "data/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "data/tokenizer_model.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxModelBytes = size_t{64} << 20;

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

struct Tokenizer::Model {
  sentencepiece::SentencePieceProcessor processor;
};

Tokenizer::Tokenizer(const std::string& path) : path_(model_path(path)), model_(std::make_unique<Model>()) {
  auto& processor = model_->processor;
  const std::string bytes = read_small_file(path_, kMaxModelBytes, "name a tokenizer.model of sentencepiece");
  check_tokenizer_model(bytes, printable(path_, 200));
  if (bytes.empty() || !processor.LoadFromSerializedProto(bytes).ok())
    throw UserError(printable(path_, 200), "is not a sound sentencepiece model",
                    "fetch it again from the model's hub page");
  vocab_size_ = processor.GetPieceSize();
  bos_ = processor.bos_id();
  eos_ = processor.eos_id();
  unk_ = processor.unk_id();
  if (bos_ < 0 || eos_ < 0)
    throw UserError(printable(path_, 200), "has no BOS or no EOS token",
                    "use a tokenizer trained with both (<s> and </s>)");
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = model_->processor.Encode(text, &ids);
  if (!status.ok())
    throw Error(printable(path_, 200), fmt::format("cannot encode: {}", status.ToString()), "use a sound tokenizer");
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  MT_CHECK(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < vocab_size_; }));
  std::string text;
  const auto status = model_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok())
    throw Error(printable(path_, 200), fmt::format("cannot decode: {}", status.ToString()), "use a sound tokenizer");
  return text;
}

const std::string& Tokenizer::piece(int32_t id) const {
  MT_CHECK(id >= 0 && id < vocab_size_);
  return model_->processor.IdToPiece(id);
}

}  // namespace mixtune
