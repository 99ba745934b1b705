// What turns the text of a run's files into tokens, opened once for all of them.
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
  std::optional<ChosenTemplate> chat_template;           // none: no conversations are told in the run's
  std::map<ChatTemplateName, ChatTemplate> others = {};  // that entries of `datasets` name

  // Valid as long as this lives.
  TextEncoder encoder(const DataSettings& settings) const;
};

// `tokenizer`, that of `folder` (or a file in it), and where `datasets` hold conversations the chat templates that
// these and `config` ask for, which it says, each in a line. Throws as choose_template does.
TextSource open_text_source(std::unique_ptr<Tokenizer> tokenizer, const std::string& folder,
                            std::span<const Dataset> datasets, const Config& config);

}  // namespace mixtune
