// TextSource: the tokeniser and templates for the text of a run's files, opened once for all of them.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "config/config.h"
#include "data/choose_template.h"
#include "data/text_encoder.h"

namespace mixtune {

struct TextSource {
  std::unique_ptr<Tokenizer> tokenizer;                  // null: there is no text
  std::optional<ChosenTemplate> chat_template;           // none: no conversation takes the run's
  std::map<ChatTemplateName, ChatTemplate> others = {};  // those that entries of `datasets` name

  // The encoder, valid as long as this lives.
  TextEncoder encoder(const DataSettings& settings) const;
};

// Takes `tokenizer`, that of `folder` (or a file in it), and where `datasets` hold conversations chooses the chat
// templates that these and `config` ask for; logs a line for each. Throws as choose_template does.
TextSource open_text_source(std::unique_ptr<Tokenizer> tokenizer, const std::string& folder,
                            std::span<const Dataset> datasets, const Config& config);

}  // namespace mixtune
