// TokenizerJson: tokenizer.json of Mistral's kind, as tokenizers writes it: byte-pair encoding, U+2581 for spaces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/bpe.h"
#include "data/space_normalizer.h"

namespace mixtune {

struct TokenizerJson {
  // The pre-tokeniser Metaspace, which treats every stretch of text after the normaliser.
  struct Metaspace {
    enum class Prepend { kNever, kFirst, kAlways };
    Prepend prepend =
        Prepend::kNever;  // a mark, where there is none: to no stretch, the one that begins the text, each
    bool split = false;   // no merge reaches over the begin of a mark
  };

  BpeModel model;
  std::vector<SpaceNormalizer::Step> normalizer;
  bool has_metaspace = false;
  Metaspace metaspace;
  std::vector<AddedToken> added;   // ids and names as the file gives them
  bool strips_first_space = true;  // the decoder removes the space that a decoded text begins with
};

inline constexpr size_t kMaxTokenizerJsonBytes = size_t{64} << 20;

// Parses it. Throws UserError at `where` where it is not sound, and by name for what is in it and not supported.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where);

}  // namespace mixtune
