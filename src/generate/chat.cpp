#include "generate/chat.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace mixtune {

void Chat::answer(const std::string& text, const std::string& where,
                  const std::function<void(const std::string&)>& say) {
  conversation_.turns.push_back({.role = Role::kUser, .text = text});
  std::vector<int32_t> ids = prompter_.encode(conversation_, where);
  if (const int64_t room = decoder_.room().positions; std::ssize(ids) >= room)
    throw UserError(where, fmt::format("its {} tokens leave no room in a conversation of {}", ids.size(), room),
                    "begin another, or raise --max-length");
  const auto same = std::ranges::mismatch(ids, ids_).in1 - ids.begin();
  // The last token's logits are asked for: it is computed in any case.
  reuse_ = {.tokens = std::ssize(ids), .kept = std::min({decoder_.length(0), int64_t{same}, std::ssize(ids) - 1})};
  decoder_.cut(0, reuse_.kept);
  ids_ = std::move(ids);

  std::string answer;
  const auto hear = [&](const std::string& piece) {
    answer += piece;
    say(piece);
  };
  TextStream stream = prompter_.stream(ids_);
  continue_texts(decoder_, {&ids_, 1}, ends_, sampling_, [&](size_t) { hear(stream.add(ids_.back())); });
  hear(stream.finish());
  if (answer.empty())  // templates have none
    conversation_.turns.pop_back();
  else
    conversation_.turns.push_back({.role = Role::kAssistant, .text = answer});
}

}  // namespace mixtune
