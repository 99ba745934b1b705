#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "config/keys.h"
#include "config/load.h"
#include "data/choose_template.h"
#include "data/text_encoder.h"
#include "generate/continue.h"
#include "model/end_of_text.h"
#include "train/instance_options.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

struct GenerateArguments {
  std::string model, base, tokenizer, ids, logits, chat_template = "auto";
  std::optional<std::string> prompt, system;
  bool chat = false;
  bool has_temperature = false, has_top_p = false, has_chat_template = false;  // given, whatever their values
  int64_t max_new_tokens = 128;
  Sampling sampling;
};

// A safetensors file with `logits` [T, V]: what the model says after each token of the prompt.
void write_logits(Decoder& decoder, const std::vector<int32_t>& ids, int64_t vocab, const std::string& path) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const std::vector<float> logits = decoder.logits(ids);
  const TensorEntry entry = {"logits", DType::kF32, {tokens, vocab}};
  StagedPath file(path);
  SafetensorsWriter writer(file.path(), {&entry, 1});
  writer.write(0, 0, std::as_bytes(std::span(logits)));
  writer.finish();
  file.commit_new();
}

std::vector<int32_t> parse_ids(std::string_view text) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == ' ' || text[i] == ',') {
      ++i;
      continue;
    }
    int32_t id = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), id);
    if (error != std::errc())
      throw UserError("--ids", fmt::format("'{}' is not a list of token ids", printable(text)), "write --ids 1,2,3");
    ids.push_back(id);
    i = static_cast<size_t>(end - text.data());
  }
  return ids;
}

void check_prompt(const std::vector<int32_t>& ids, const MixtralConfig& config) {
  if (ids.empty()) throw UserError("--ids", "there is no id", "write --ids 1,2,3");
  for (const int32_t id : ids)
    if (id < 0 || id >= config.vocab_size)
      throw UserError("prompt",
                      fmt::format("token id {} is outside the model's vocabulary of {}", id, config.vocab_size),
                      "use the tokenizer that belongs to this model");
  if (static_cast<int64_t>(ids.size()) >= config.max_position_embeddings)
    throw UserError("prompt",
                    fmt::format("its {} tokens leave no room in the model's {} positions", ids.size(),
                                config.max_position_embeddings),
                    "shorten it");
}

// What turns a prompt into tokens, and tells where its answer ends.
struct Prompter {
  std::unique_ptr<Tokenizer> tokenizer;
  TextEncoder encoder;

  Prompter(const std::string& folder, const MixtralConfig& model, const GenerateArguments& arguments)
      : tokenizer(open_model_tokenizer(folder, model)), encoder{.tokenizer = tokenizer.get()} {
    if (!arguments.chat) return;
    const Key* key = find_key("chat_template");
    Config config;
    key->set(config, parse_value(*key, arguments.chat_template, "--chat-template"));
    const ChosenTemplate chosen = choose_template(config.data.chat_template, folder, *tokenizer, "--chat-template");
    log_info("chat template: {} ({})", template_name(chosen.chat_template.name), chosen.why);
    encoder.chat_template = chosen.chat_template;
  }

  std::vector<int32_t> encode(const GenerateArguments& arguments) const {
    if (arguments.chat) {
      Conversation conversation;
      if (arguments.system) conversation.turns.push_back({.role = Role::kSystem, .text = *arguments.system});
      conversation.turns.push_back({.role = Role::kUser, .text = *arguments.prompt});
      return encode_prompt(encoder, conversation, "--prompt");
    }
    std::vector<int32_t> ids = tokenizer->encode(*arguments.prompt);
    ids.insert(ids.begin(), tokenizer->bos());
    return ids;
  }

  // The tokens that end a text, or an answer.
  void add_ends(std::vector<int32_t>& ends, bool chat) const {
    ends.push_back(tokenizer->eos());
    if (chat) ends.push_back(end_of_answer(encoder));
  }
};

// What the tokens after the first `prompt` ones say, with the space that may part it from the prompt.
std::string continuation(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, size_t prompt, bool chat) {
  const std::span<const int32_t> all(ids);
  if (chat) return tokenizer.decode(all.subspan(prompt));
  const std::string text = tokenizer.decode(all);
  return text.substr(std::min(tokenizer.decode(all.first(prompt)).size(), text.size()));
}

void check_flags(const GenerateArguments& arguments) {
  if (arguments.prompt.has_value() == !arguments.ids.empty())
    throw UserError("command line", "one of --prompt and --ids is needed", "give --prompt TEXT");
  if (!arguments.prompt && arguments.chat)
    throw UserError("--chat", "has no effect with --ids", "remove it, or give --prompt TEXT");
  if (!arguments.chat && (arguments.system || arguments.has_chat_template))
    throw UserError(arguments.system ? "--system" : "--chat-template", "has no effect without --chat",
                    "remove it, or add --chat");
  if (!arguments.prompt && !arguments.tokenizer.empty())
    throw UserError("--tokenizer", "has no effect with --ids", "remove it, or give --prompt TEXT");
  if (arguments.has_top_p && !arguments.has_temperature)
    throw UserError("--top-p", "has no effect without --temperature", "remove it, or add --temperature 1");
}

void run_generate(const GenerateArguments& arguments, const Overrides& overrides) {
  check_flags(arguments);
  const FoundModel found = find_model_or_adapter(arguments.model, arguments.base);
  const std::string& model = found.folder;
  const MixtralConfig config = load_mixtral_config(model);
  std::optional<Prompter> prompter;
  if (arguments.prompt)
    prompter.emplace(arguments.tokenizer.empty() ? found.tokenizer : model_folder(arguments.tokenizer), config,
                     arguments);
  const Tokenizer* tokenizer = prompter ? prompter->tokenizer.get() : nullptr;
  std::vector<int32_t> ids = prompter ? prompter->encode(arguments) : parse_ids(arguments.ids);
  check_prompt(ids, config);
  if (!arguments.logits.empty()) check_output_file(arguments.logits, false);
  const size_t prompt = ids.size();

  const int64_t limit =
      std::min(static_cast<int64_t>(prompt) + arguments.max_new_tokens, config.max_position_embeddings);
  const Config keys = load_config(std::nullopt, overrides);
  Decoder decoder(config, {model, found.adapter}, {.sequences = 1, .positions = limit},
                  instance_options(keys, State::Purpose::kInference));
  if (!arguments.logits.empty()) write_logits(decoder, ids, config.vocab_size, arguments.logits);
  TextEnds ends = {.ids = end_of_text_ids(model, config), .most_tokens = arguments.max_new_tokens};
  if (prompter) prompter->add_ends(ends.ids, arguments.chat);
  continue_texts(decoder, {&ids, 1}, ends, arguments.sampling);
  if (tokenizer) {
    std::erase_if(ids, [&](int32_t id) { return id >= tokenizer->vocab_size(); });  // a padded vocabulary's
    fmt::print("{}\n", continuation(*tokenizer, ids, prompt, arguments.chat));
  } else {
    fmt::print("{}\n", fmt::join(ids.begin() + static_cast<int64_t>(prompt), ids.end(), " "));
  }
}

// CLI::Range lets a NaN pass.
CLI::Validator number_within(double low, double high) {
  const auto check = [=](std::string& text) {
    double number = 0;
    const bool good = CLI::detail::lexical_cast(text, number) && number >= low && number <= high;
    return good ? std::string() : fmt::format("'{}' is not a number from {} to {}", printable(text), low, high);
  };
  return CLI::Validator(check, "");
}

}  // namespace

Command add_generate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("generate", "Continue a prompt");
  const auto arguments = std::make_shared<GenerateArguments>();
  app->add_option("MODEL", arguments->model, "folder of a checkpoint, or of an adapter")
      ->type_name("FOLDER")
      ->required();
  app->add_option("--base", arguments->base, "folder of an adapter's base; default: the one that it names")
      ->type_name("FOLDER");
  app->add_option("--prompt", arguments->prompt, "text to continue")->type_name("TEXT");
  app->add_flag("--chat", arguments->chat, "The prompt is a user's turn: wrap it as the chat template does");
  const CLI::Option* chat_template = app->add_option("--chat_template,--chat-template", arguments->chat_template,
                                                     "template of --chat; auto: what the folder says")
                                         ->type_name("NAME")
                                         ->capture_default_str();
  app->add_option("--system", arguments->system, "system text before the user's turn, with --chat")->type_name("TEXT");
  app->add_option("--ids", arguments->ids, "token ids to continue, instead of text; ids are printed")
      ->type_name("1,2,3");
  app->add_option("--logits", arguments->logits, "write the prompt's logits to this new safetensors file")
      ->type_name("FILE");
  app->add_option("--max-new-tokens", arguments->max_new_tokens, "stop after so many tokens")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  const CLI::Option* temperature =
      app->add_option("--temperature", arguments->sampling.temperature, "0: always the likeliest token")
          ->type_name("NUMBER")
          ->capture_default_str()
          ->check(number_within(0, 100));
  const CLI::Option* top_p = app->add_option("--top-p", arguments->sampling.top_p,
                                             "choose from the likeliest tokens with this probability together")
                                 ->type_name("NUMBER")
                                 ->capture_default_str()
                                 ->check(number_within(0, 1));
  app->add_option("--seed", arguments->sampling.seed, "seed of the choices")
      ->type_name("INTEGER")
      ->capture_default_str();
  app->add_option("--tokenizer", arguments->tokenizer, "folder of the tokenizer; default: MODEL")->type_name("FOLDER");
  const KeyFlags flags(*app, {"device", "precision", "fp8_scaling", "fp8_power_of_two_scales", "base_precision"});
  add_examples(
      *app, {"mixtune generate examples/quickstart/pretrained --prompt \"Once upon a time\" --max-new-tokens 20",
             "mixtune generate examples/quickstart/pretrained --ids 1,345,1200 --max-new-tokens 20 --temperature "
             "0.8 --seed 1",
             "mixtune generate examples/quickstart/pretrained --chat --system \"Be brief.\" --prompt \"Define: daisy "
             "(noun)\" --max-new-tokens 20"});
  return {app, [arguments, flags, temperature, top_p, chat_template] {
            arguments->has_chat_template = chat_template->count() > 0;
            arguments->has_temperature = temperature->count() > 0;
            arguments->has_top_p = top_p->count() > 0;
            run_generate(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
