#include "data/text_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "base/log.h"
#include "data/load_documents.h"

namespace mixtune {

TextEncoder TextSource::encoder(const DataSettings& settings) const {
  return {.tokenizer = tokenizer.get(),
          .chat_template = chat_template ? chat_template->chat_template : ChatTemplate(),
          .train_on_prompt = settings.train_on_prompt,
          .parse_special_tokens = settings.parse_special_tokens,
          .others = others};
}

namespace {

// Opens the templates that entries name for themselves.
void open_others(TextSource& source, const std::string& folder, std::span<const Dataset> datasets,
                 const Config& config) {
  for (size_t i = 0; i < datasets.size(); ++i) {
    const ChatTemplateName name = datasets[i].chat_template;
    if (name == ChatTemplateName::kAuto) continue;
    const std::string where = fmt::format("{}: entry {}: template", config.where("datasets"), i + 1);
    if (!needs_chat_template(datasets.subspan(i, 1), config.data.dataset_format))
      log_warning("{}: its records are no conversations, and need none", where);
    if (!source.tokenizer) continue;
    source.others[name] = choose_template(name, folder, *source.tokenizer, where, false).chat_template;
    log_info("chat template of entry {}: {}", i + 1, template_name(name));
  }
}

}  // namespace

TextSource open_text_source(std::unique_ptr<Tokenizer> tokenizer, const std::string& folder,
                            std::span<const Dataset> datasets, const Config& config) {
  TextSource source{.tokenizer = std::move(tokenizer), .chat_template = {}};
  open_others(source, folder, datasets, config);
  std::vector<Dataset> of_run;
  std::ranges::copy_if(datasets, std::back_inserter(of_run),
                       [](const Dataset& dataset) { return dataset.chat_template == ChatTemplateName::kAuto; });
  const bool asked = config.data.chat_template != ChatTemplateName::kAuto && !source.others.empty();
  if (!asked && !needs_chat_template(of_run, config.data.dataset_format)) return source;
  source.chat_template =
      choose_template(config.data.chat_template, folder, *source.tokenizer, config.where("chat_template"));
  log_info("chat template: {} ({})", template_name(source.chat_template->chat_template.name),
           source.chat_template->why);
  return source;
}

}  // namespace mixtune
