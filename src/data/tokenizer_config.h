// TokenizerConfig: what stands in a folder beside a tokeniser's own file: tokens that were added, BOS and EOS.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/added_tokens.h"

namespace mixtune {

// Reads the fields of an AddedToken, of which `content`, its name, must be there. Throws UserError at `where`.
AddedToken read_added_token(const nlohmann::json& token, int32_t id, const std::string& where);

struct TokenizerConfig {
  // A token that a file names without its id.
  struct Named {
    std::string name, where;
    bool needed = true;  // false: a role without a use in training, like padding
  };

  std::vector<AddedToken> added;  // by ascending id, ids and names unique
  std::string added_where;        // the file that lists them
  bool has_flags = false;         // the file says how each is found in a text
  std::optional<Named> bos, eos;
  std::vector<Named> special;  // for the other roles, and additional_special_tokens
  bool legacy = true;          // each stretch of a text, not only the first, has a space put before it
};

// Reads tokenizer_config.json, added_tokens.json and special_tokens_map.json in `folder`, any of which may be missing,
// as transformers does: added_tokens_decoder of the first is the list; where there is none, it is added_tokens.json,
// with special_tokens_map.json to say which of it is special. Throws UserError where one is not sound, or contradicts
// another.
TokenizerConfig read_tokenizer_config(const std::string& folder);

}  // namespace mixtune
