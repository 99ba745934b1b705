// Prompter: what turns a prompt into tokens, and tells where its answer ends.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/record.h"
#include "data/text_encoder.h"
#include "generate/text_stream.h"
#include "model/mixtral_config.h"

namespace mixtune {

struct PromptOptions {
  bool chat = false;                   // a prompt is a user's turn
  std::string chat_template = "auto";  // of that: the value of the key chat_template
  std::optional<std::string> system;   // text before the first turn
};

class Prompter {
 public:
  // Opens the tokenizer of `folder`, and in a chat its template, which is logged. Throws UserError where they are not
  // sound, or not the model's.
  Prompter(const std::string& folder, const MixtralConfig& model, const PromptOptions& options);

  const Tokenizer& tokenizer() const { return *encoder_.tokenizer; }

  // The tokens of a text to continue, or of a conversation of that one turn, checked (check_prompt). Throws UserError
  // at `where`.
  std::vector<int32_t> encode(const std::string& text, const std::string& where) const;
  // Of a conversation that ends with the user.
  std::vector<int32_t> encode(const Conversation& conversation, const std::string& where) const;
  // A conversation in which nobody but the system has said anything.
  Conversation new_conversation() const;

  // Adds the tokens that end a text, or an answer.
  void add_ends(std::vector<int32_t>& ends) const;
  // Of what follows the prompt.
  TextStream stream(const std::vector<int32_t>& prompt) const;

 private:
  MixtralConfig model_;
  PromptOptions options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TextEncoder encoder_;
};

// Throws UserError at `where` unless the tokens are the model's and leave room for another.
void check_prompt(const std::vector<int32_t>& ids, const MixtralConfig& model, const std::string& where);

}  // namespace mixtune
