#include "cli/describe_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "data/indexed_reader.h"
#include "data/tokenizer.h"

namespace mixtune {

namespace {

std::string list_tokens(const char* name, const std::vector<SpecialToken>& tokens, bool special) {
  constexpr size_t kShown = 20;
  std::string list;
  size_t count = 0;
  for (const SpecialToken& token : tokens) {
    if (token.special != special || ++count > kShown) continue;
    list += fmt::format("{}{} ({})", list.empty() ? "" : ", ", token.id, printable(token.name));
  }
  if (count > kShown) list += fmt::format(" and {} more", count - kShown);
  return count > 0 ? fmt::format("{}: {}\n", name, list) : "";
}

}  // namespace

std::string describe_indexed(const std::string& prefix) {
  const IndexedReader reader(prefix, std::numeric_limits<int32_t>::max());
  std::string text =
      fmt::format("format: indexed\ntype of a token: {}\ndocuments: {}\nsequences: {}\ntokens: {}\n",
                  token_type_name(reader.type()), reader.documents(), reader.sequences(), reader.tokens());
  if (reader.sequences() > 0)
    text += fmt::format("tokens a sequence: min {}, mean {:.1f}, max {}\n", reader.min_length(),
                        static_cast<double>(reader.tokens()) / static_cast<double>(reader.sequences()),
                        reader.max_length());
  return text + fmt::format("mask: {}\n", reader.has_mask() ? "some tokens are not trained" : "none, all are trained");
}

std::string describe_tokenizer(const std::string& path) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(path);
  const std::vector<SpecialToken> special = tokenizer->special_tokens();
  const auto added = std::ranges::count_if(special, &SpecialToken::added);
  std::string text =
      fmt::format("tokenizer: {}, {} ({})\npieces: {}\n", tokenizer->kind(), printable(tokenizer->path(), 200),
                  format_bytes(InputFile(tokenizer->path()).size()), tokenizer->vocab_size() - added);
  if (added > 0) text += fmt::format("added tokens: {}\ntokens in all: {}\n", added, tokenizer->vocab_size());
  const auto add = [&](const char* name, int32_t id) {
    if (id >= 0) text += fmt::format("{}: {} ({})\n", name, id, printable(tokenizer->piece(id)));
  };
  add("BOS", tokenizer->bos());
  add("EOS", tokenizer->eos());
  add("unknown", tokenizer->unk());
  return text + list_tokens("special tokens", special, true) + list_tokens("added words", special, false);
}

}  // namespace mixtune
