#include "data/text_source.h"

#include <utility>

#include "base/log.h"
#include "data/load_documents.h"

namespace mixtune {

TextEncoder TextSource::encoder(const DataSettings& settings) const {
  return {.tokenizer = tokenizer.get(),
          .chat_template = chat_template ? chat_template->chat_template : ChatTemplate(),
          .train_on_prompt = settings.train_on_prompt,
          .parse_special_tokens = settings.parse_special_tokens};
}

TextSource open_text_source(std::unique_ptr<Tokenizer> tokenizer, const std::string& folder,
                            std::span<const Dataset> datasets, const Config& config) {
  TextSource source{.tokenizer = std::move(tokenizer), .chat_template = {}};
  if (!needs_chat_template(datasets, config.data.dataset_format)) return source;
  source.chat_template =
      choose_template(config.data.chat_template, folder, *source.tokenizer, config.where("chat_template"));
  log_info("chat template: {} ({})", template_name(source.chat_template->chat_template.name),
           source.chat_template->why);
  return source;
}

}  // namespace mixtune
