// Chat: a conversation with a model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "generate/continue.h"
#include "generate/prompter.h"

namespace mixtune {

class Chat {
 public:
  // In sequence 0 of the decoder, with the prompter's chat template. Both outlive the chat.
  Chat(Decoder& decoder, const Prompter& prompter, const TextEnds& ends, const Sampling& sampling)
      : decoder_(decoder),
        prompter_(prompter),
        ends_(ends),
        sampling_(sampling),
        conversation_(prompter.new_conversation()) {}

  // Answers the user's turn, by all that was said before, and calls say with each piece of the answer. Tokens that the
  // decoder has are not computed again, as far as the conversation still begins with them. A turn that gets an empty
  // answer is forgotten with it. Throws UserError at `where` once the conversation is too long for the model or the
  // decoder.
  void answer(const std::string& text, const std::string& where, const std::function<void(const std::string&)>& say);

  // Of the last answer: tokens of the conversation before it, and of those the ones that were not computed again.
  struct Reuse {
    int64_t tokens = 0, kept = 0;
  };
  const Reuse& reuse() const { return reuse_; }

 private:
  Decoder& decoder_;
  const Prompter& prompter_;
  TextEnds ends_;
  Sampling sampling_;
  Conversation conversation_;
  std::vector<int32_t> ids_;  // of the last prompt and its answer: the decoder's sequence begins so
  Reuse reuse_;
};

}  // namespace mixtune
