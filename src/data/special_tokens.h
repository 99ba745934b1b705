// SpecialTokens: the special and added tokens of a tokeniser, of its own file and of its folder.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/tokenizer_config.h"

namespace mixtune {

// The pieces of a tokeniser's own file.
struct OwnPieces {
  std::string where;  // the file
  int32_t size = 0;
  std::function<std::optional<int32_t>(std::string_view)> find;
  std::function<std::string(int32_t)> name;
};

struct SpecialTokens {
  std::vector<AddedToken> tokens;  // by ascending id; those from the pieces' number on, without a hole
  int32_t bos = -1, eos = -1;
};

// Joins `own`, the added tokens of the tokeniser's own file with its BOS and EOS, and the folder's, which go before
// them. Throws UserError where the two contradict each other, an id is left out, or a role's token is in neither.
SpecialTokens join_special_tokens(const OwnPieces& pieces, const SpecialTokens& own, const TokenizerConfig& config);

}  // namespace mixtune
