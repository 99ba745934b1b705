#include "data/special_tokens.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"

namespace mixtune {

namespace {

// Joins the tokens of both lists.
class Joined {
 public:
  Joined(const OwnPieces& pieces, const SpecialTokens& own, const TokenizerConfig& config)
      : pieces_(pieces), config_(config) {
    for (const AddedToken& token : own.tokens) {
      check(token, pieces.where);
      set(token);
    }
    for (const AddedToken& token : config.added) {
      check(token, config.added_where);
      if (config.has_flags || !tokens_.contains(token.id)) set(token);
    }
    check_dense();
  }

  // Makes the token of a role a special one. Returns its id; -1 where there is none of this name.
  int32_t make_special(const TokenizerConfig::Named& named) {
    const std::optional<int32_t> id = find(named.name);
    if (!id && !named.needed) return -1;
    if (!id)
      throw UserError(named.where,
                      fmt::format("names '{}', which is no token of {}", printable(named.name), pieces_.where),
                      "give it an id in added_tokens_decoder, or name a token that is there");
    if (!tokens_.contains(*id)) set({.name = named.name, .id = *id});
    AddedToken& token = tokens_[*id];
    token.special = true;
    if (!config_.has_flags && *id >= pieces_.size) token.normalized = false;
    return *id;
  }

  std::vector<AddedToken> list() const {
    std::vector<AddedToken> list;
    for (const auto& item : tokens_) list.push_back(item.second);
    return list;
  }

 private:
  void set(const AddedToken& token) {
    tokens_[token.id] = token;
    ids_[token.name] = token.id;
  }

  std::optional<int32_t> find(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? pieces_.find(name) : found->second;
  }

  void check(const AddedToken& token, const std::string& where) const {
    const std::optional<int32_t> id = find(token.name);
    if (id && *id != token.id)
      refuse(where,
             fmt::format("gives '{}' the id {}, in {} it is {}", printable(token.name), token.id, pieces_.where, *id));
    const auto other = tokens_.find(token.id);
    const std::string name = other != tokens_.end()    ? other->second.name
                             : token.id < pieces_.size ? pieces_.name(token.id)
                                                       : token.name;
    if (name != token.name)
      refuse(where, fmt::format("says that {} is '{}', in {} it is '{}'", token.id, printable(token.name),
                                pieces_.where, printable(name)));
  }

  void check_dense() const {
    int32_t next = pieces_.size;
    for (auto token = tokens_.lower_bound(next); token != tokens_.end(); ++token, ++next)
      if (token->first != next)
        refuse(config_.added.empty() ? pieces_.where : config_.added_where,
               fmt::format("gives '{}' the id {}, but no token has the id {}: {} ends at {}",
                           printable(token->second.name), token->first, next, pieces_.where, pieces_.size - 1));
  }

  [[noreturn]] static void refuse(const std::string& where, const std::string& what) {
    throw UserError(where, what, "use the files of one model, as its hub page has them");
  }

  const OwnPieces& pieces_;
  const TokenizerConfig& config_;
  std::map<int32_t, AddedToken> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
};

}  // namespace

SpecialTokens join_special_tokens(const OwnPieces& pieces, const SpecialTokens& own, const TokenizerConfig& config) {
  Joined joined(pieces, own, config);
  for (const TokenizerConfig::Named& named : config.special) joined.make_special(named);
  SpecialTokens result = own;
  if (config.bos) result.bos = joined.make_special(*config.bos);
  if (config.eos) result.eos = joined.make_special(*config.eos);
  result.tokens = joined.list();
  return result;
}

}  // namespace mixtune
