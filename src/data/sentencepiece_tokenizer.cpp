#include "data/sentencepiece_tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/span_tokenizer.h"
#include "data/special_tokens.h"
#include "data/tokenizer_config.h"
#include "data/tokenizer_model.h"

namespace mixtune {

namespace {

constexpr size_t kMaxModelBytes = size_t{64} << 20;

std::string folder_of(const std::string& file) {
  const std::filesystem::path folder = std::filesystem::path(file).parent_path();
  return folder.empty() ? "." : folder;
}

class SentencePieceTokenizer : public SpanTokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path) {
    path_ = path;
    const std::string bytes = read_small_file(path_, kMaxModelBytes, "name a tokenizer.model of sentencepiece");
    check_tokenizer_model(bytes, printable(path_, 200));
    if (bytes.empty() || !processor_.LoadFromSerializedProto(bytes).ok())
      throw UserError(printable(path_, 200), "is not a sound sentencepiece model",
                      "fetch it again from the model's hub page");
    unk_ = processor_.unk_id();
    const TokenizerConfig config = read_tokenizer_config(folder_of(path_));
    legacy_ = config.legacy;
    take_special_tokens(config);
    const auto is_text = [](const AddedToken& token) {
      return !token.special;
    };
    if (!legacy_ || std::ranges::any_of(added_tokens(), is_text)) load_without_prefix(bytes);
  }

  std::string decode(std::span<const int32_t> ids) const override {
    MT_CHECK(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < vocab_size_; }));
    std::string text;
    std::vector<int> pieces;
    const auto flush = [&] {
      text += decode_pieces(pieces, text.empty());
      pieces.clear();
    };
    for (const int32_t id : ids) {
      const AddedToken* token = added_token(id);
      if (!token) pieces.push_back(id);
      if (!token || token->special) continue;
      flush();
      text += token->name;
    }
    flush();
    return text;
  }

  std::string piece(int32_t id) const override {
    MT_CHECK(id >= 0 && id < vocab_size_);
    const AddedToken* token = added_token(id);
    return token ? token->name : processor_.IdToPiece(id);
  }

  std::string_view kind() const override { return "sentencepiece"; }

 private:
  void encode_stretch(const Stretch& stretch, EncodedSpans& out) const override {
    const bool spaced = stretch.text.starts_with(' ') || stretch.text.starts_with(kSpaceMark);
    const bool prefixed = legacy_ || (stretch.begin == 0 && !spaced);
    sentencepiece::ImmutableSentencePieceText pieces;
    check((prefixed ? processor_ : unprefixed_).Encode(stretch.text, pieces.mutable_proto()), "encode");
    for (size_t i = 0; i < pieces.pieces_size(); ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      out.ids.push_back(static_cast<int32_t>(piece.id()));
      out.begins.push_back(stretch.begin + piece.begin());
    }
  }

  // sentencepiece removes the space that it puts before a text: only the first piece can have it.
  std::string decode_pieces(const std::vector<int>& pieces, bool first) const {
    std::string text;
    if (pieces.empty()) return text;
    check((first ? processor_ : unprefixed_).Decode(pieces, &text), "decode");
    return text;
  }

  // Loads the same model, but for the space that it puts before a text: in protobuf a later value overrides the former,
  // and a later message is merged into it.
  void load_without_prefix(const std::string& proto) {
    constexpr std::string_view kNormalizerSpec = "\x1A\x02";    // ModelProto's field 3, of 2 bytes
    constexpr std::string_view kAddDummyPrefix("\x18\x00", 2);  // NormalizerSpec's field 3: false
    const std::string changed = fmt::format("{}{}{}", proto, kNormalizerSpec, kAddDummyPrefix);
    MT_CHECK(unprefixed_.LoadFromSerializedProto(changed).ok());
  }

  void take_special_tokens(const TokenizerConfig& config) {
    OwnPieces own = {.where = printable(path_, 200), .size = processor_.GetPieceSize()};
    own.name = [&](int32_t id) {
      return processor_.IdToPiece(id);
    };
    own.find = [&](std::string_view name) {
      const int32_t id = processor_.PieceToId(name);
      return processor_.IdToPiece(id) == name ? std::optional(id) : std::nullopt;
    };
    SpecialTokens special = join_special_tokens(
        own, {.tokens = control_tokens(), .bos = processor_.bos_id(), .eos = processor_.eos_id()}, config);
    // transformers finds names before the normaliser has its turn, whatever the tokens say of it.
    for (AddedToken& token : special.tokens) token.normalized = false;
    bos_ = special.bos;
    eos_ = special.eos;
    if (bos_ < 0 || eos_ < 0)
      throw UserError(own.where, "has no BOS or no EOS token", "use a tokenizer trained with both (<s> and </s>)");
    set_added_tokens(own.size, std::move(special.tokens));
  }

  // transformers gives the unknown token a name in the text too.
  std::vector<AddedToken> control_tokens() const {
    std::vector<AddedToken> tokens;
    for (int32_t id = 0; id < processor_.GetPieceSize(); ++id)
      if (processor_.IsControl(id) || id == unk_)
        tokens.push_back({.name = processor_.IdToPiece(id), .id = id, .special = true});
    return tokens;
  }

  void check(const sentencepiece::util::Status& status, const char* what) const {
    if (!status.ok())
      throw Error(printable(path_, 200), fmt::format("cannot {}: {}", what, status.ToString()),
                  "use a sound tokenizer");
  }

  sentencepiece::SentencePieceProcessor processor_, unprefixed_;
  bool legacy_ = true;
};

}  // namespace

std::unique_ptr<Tokenizer> open_sentencepiece_tokenizer(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

}  // namespace mixtune
