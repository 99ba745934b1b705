#include "generate/prompter.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "config/keys.h"
#include "data/choose_template.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

ChatTemplate template_of(const PromptOptions& options, const std::string& folder, const Tokenizer& tokenizer) {
  const std::string where = "--chat-template";
  const Key* key = find_key("chat_template");
  Config config;
  key->set(config, parse_value(*key, options.chat_template, where));
  const ChosenTemplate chosen = choose_template(config.data.chat_template, folder, tokenizer, where);
  log_info("chat template: {} ({})", template_name(chosen.chat_template.name), chosen.why);
  return chosen.chat_template;
}

}  // namespace

Prompter::Prompter(const std::string& folder, const MixtralConfig& model, const PromptOptions& options)
    : model_(model),
      options_(options),
      tokenizer_(open_model_tokenizer(folder, model)),
      encoder_{.tokenizer = tokenizer_.get()} {
  if (options.chat) encoder_.chat_template = template_of(options, folder, *tokenizer_);
}

std::vector<int32_t> Prompter::encode(const std::string& text, const std::string& where) const {
  if (options_.chat) {
    Conversation conversation = new_conversation();
    conversation.turns.push_back({.role = Role::kUser, .text = text});
    return encode(conversation, where);
  }
  std::vector<int32_t> ids = tokenizer_->encode(text);
  ids.insert(ids.begin(), tokenizer_->bos());
  check_prompt(ids, model_, where);
  return ids;
}

std::vector<int32_t> Prompter::encode(const Conversation& conversation, const std::string& where) const {
  std::vector<int32_t> ids = encode_prompt(encoder_, conversation, where);
  check_prompt(ids, model_, where);
  return ids;
}

Conversation Prompter::new_conversation() const {
  Conversation conversation;
  if (options_.system) conversation.turns.push_back({.role = Role::kSystem, .text = *options_.system});
  return conversation;
}

void Prompter::add_ends(std::vector<int32_t>& ends) const {
  ends.push_back(tokenizer_->eos());
  if (options_.chat) ends.push_back(end_of_answer(encoder_));
}

TextStream Prompter::stream(const std::vector<int32_t>& prompt) const {
  return {*tokenizer_, options_.chat ? std::span<const int32_t>() : std::span(prompt)};
}

void check_prompt(const std::vector<int32_t>& ids, const MixtralConfig& model, const std::string& where) {
  for (const int32_t id : ids)
    if (id < 0 || id >= model.vocab_size)
      throw UserError(where, fmt::format("token id {} is outside the model's vocabulary of {}", id, model.vocab_size),
                      "use the tokenizer that belongs to this model");
  if (static_cast<int64_t>(ids.size()) >= model.max_position_embeddings)
    throw UserError(where,
                    fmt::format("its {} tokens leave no room in the model's {} positions", ids.size(),
                                model.max_position_embeddings),
                    "shorten it");
}

}  // namespace mixtune
