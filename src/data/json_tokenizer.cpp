#include "data/json_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "data/bpe.h"
#include "data/span_tokenizer.h"
#include "data/special_tokens.h"
#include "data/tokenizer_config.h"
#include "data/tokenizer_json.h"

namespace mixtune {

namespace {

class JsonTokenizer : public SpanTokenizer {
 public:
  JsonTokenizer(const std::string& path, TokenizerJson json, const TokenizerConfig& config)
      : bpe_(std::move(json.model)),
        metaspace_(json.metaspace),
        has_metaspace_(json.has_metaspace),
        strips_first_space_(json.strips_first_space) {
    path_ = path;
    unk_ = bpe_.unk() >= 0 ? bpe_.unk() : bpe_.find("<unk>").value_or(-1);
    OwnPieces own = {.where = printable(path, 200), .size = bpe_.size()};
    own.name = [&](int32_t id) {
      return bpe_.piece(id);
    };
    own.find = [&](std::string_view name) {
      return bpe_.find(name);
    };
    SpecialTokens special = join_special_tokens(own, {.tokens = std::move(json.added)}, config);
    set_added_tokens(own.size, std::move(special.tokens), SpaceNormalizer(std::move(json.normalizer)));
    bos_ = special.bos >= 0 ? special.bos : special_id("<s>").value_or(-1);
    eos_ = special.eos >= 0 ? special.eos : special_id("</s>").value_or(-1);
    if (bos_ < 0 || eos_ < 0)
      throw UserError(own.where, "has no BOS or no EOS token, <s> and </s>",
                      "put a tokenizer_config.json beside it that names them (bos_token, eos_token)");
  }

  std::string decode(std::span<const int32_t> ids) const override {
    MT_CHECK(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < vocab_size_; }));
    std::string text, bytes;
    for (const int32_t id : ids) {
      const AddedToken* token = added_token(id);
      if (token && token->special) continue;
      if (const std::optional<char> byte = token ? std::nullopt : bpe_.byte_of(id)) {
        bytes += *byte;
        continue;
      }
      append_bytes(bytes, text);
      append_piece(token ? token->name : bpe_.piece(id), text);
    }
    append_bytes(bytes, text);
    if (strips_first_space_ && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  std::string piece(int32_t id) const override {
    MT_CHECK(id >= 0 && id < vocab_size_);
    const AddedToken* token = added_token(id);
    return token ? token->name : bpe_.piece(id);
  }

  std::string_view kind() const override { return "tokenizer.json"; }

 private:
  void encode_stretch(const Stretch& stretch, EncodedSpans& out) const override {
    const bool replaces = has_metaspace_ || normalizer().replaces_spaces();
    MarkedText marked(stretch.text, stretch.marks + metaspace_marks(stretch), replaces);
    const std::string_view text = marked.marked();
    std::vector<Bpe::Symbol> symbols;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = metaspace_.split ? text.find(kSpaceMark, begin + 1) : text.npos;
      end = std::min(end, text.size());
      symbols.clear();
      bpe_.encode(text.substr(begin, end - begin), symbols);
      for (const Bpe::Symbol& symbol : symbols) {
        out.ids.push_back(symbol.id);
        out.begins.push_back(stretch.begin + marked.begin_of(begin + symbol.begin));
      }
      begin = end;
    }
  }

  size_t metaspace_marks(const Stretch& stretch) const {
    using Prepend = TokenizerJson::Metaspace::Prepend;
    if (metaspace_.prepend == Prepend::kNever || (metaspace_.prepend == Prepend::kFirst && stretch.begin > 0)) return 0;
    return stretch.marks == 0 && !stretch.text.starts_with(' ') && !stretch.text.starts_with(kSpaceMark);
  }

  // Bytes that are no text become one U+FFFD each, as with tokenizers.
  static void append_bytes(std::string& bytes, std::string& text) {
    if (is_utf8(bytes))
      text += bytes;
    else
      for (size_t i = 0; i < bytes.size(); ++i) text += "\xEF\xBF\xBD";
    bytes.clear();
  }

  static void append_piece(std::string_view piece, std::string& text) {
    for (size_t mark; (mark = piece.find(kSpaceMark)) != piece.npos; piece.remove_prefix(mark + kSpaceMark.size())) {
      text += piece.substr(0, mark);
      text += ' ';
    }
    text += piece;
  }

  Bpe bpe_;
  TokenizerJson::Metaspace metaspace_;
  bool has_metaspace_, strips_first_space_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_json_tokenizer(const std::string& path) {
  const std::string where = printable(path, 200);
  TokenizerJson json = parse_tokenizer_json(
      read_small_file(path, kMaxTokenizerJsonBytes, "name a tokenizer.json of Mistral's kind"), where);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const TokenizerConfig config = read_tokenizer_config(folder.empty() ? "." : folder.string());
  return std::make_unique<JsonTokenizer>(path, std::move(json), config);
}

}  // namespace mixtune
