#include "data/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/span_tokenizer.h"
#include "data/tokenizer_model.h"

namespace mixtune {

namespace {

constexpr size_t kMaxModelBytes = size_t{64} << 20;

class SentencePieceTokenizer : public SpanTokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path) {
    path_ = path;
    const std::string bytes = read_small_file(path_, kMaxModelBytes, "name a tokenizer.model of sentencepiece");
    check_tokenizer_model(bytes, printable(path_, 200));
    if (bytes.empty() || !processor_.LoadFromSerializedProto(bytes).ok())
      throw UserError(printable(path_, 200), "is not a sound sentencepiece model",
                      "fetch it again from the model's hub page");
    vocab_size_ = processor_.GetPieceSize();
    bos_ = processor_.bos_id();
    eos_ = processor_.eos_id();
    unk_ = processor_.unk_id();
    if (bos_ < 0 || eos_ < 0)
      throw UserError(printable(path_, 200), "has no BOS or no EOS token",
                      "use a tokenizer trained with both (<s> and </s>)");
    set_added_tokens(control_tokens());
  }

  std::string decode(std::span<const int32_t> ids) const override {
    MT_CHECK(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < vocab_size_; }));
    std::string text;
    check(processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text), "decode");
    return text;
  }

  std::string piece(int32_t id) const override {
    MT_CHECK(id >= 0 && id < vocab_size_);
    return processor_.IdToPiece(id);
  }

  std::string_view kind() const override { return "sentencepiece"; }

 private:
  void encode_stretch(const Stretch& stretch, EncodedSpans& out) const override {
    sentencepiece::ImmutableSentencePieceText pieces;
    check(processor_.Encode(stretch.text, pieces.mutable_proto()), "encode");
    for (size_t i = 0; i < pieces.pieces_size(); ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      out.ids.push_back(static_cast<int32_t>(piece.id()));
      out.begins.push_back(stretch.begin + piece.begin());
    }
  }

  // transformers gives the unknown token a name in the text too.
  std::vector<AddedToken> control_tokens() const {
    std::vector<AddedToken> tokens;
    for (int32_t id = 0; id < vocab_size_; ++id)
      if (processor_.IsControl(id) || id == unk_)
        tokens.push_back({.name = processor_.IdToPiece(id), .id = id, .special = true});
    return tokens;
  }

  void check(const sentencepiece::util::Status& status, const char* what) const {
    if (!status.ok())
      throw Error(printable(path_, 200), fmt::format("cannot {}: {}", what, status.ToString()),
                  "use a sound tokenizer");
  }

  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_sentencepiece_tokenizer(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

}  // namespace mixtune
