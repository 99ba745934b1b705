#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "cli/arguments.h"
#include "cli/preflight.h"
#include "config/load.h"
#include "generate/continue.h"
#include "generate/prompter.h"
#include "model/end_of_text.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

struct GenerateArguments {
  std::string model, base, tokenizer, ids, logits;
  std::optional<std::string> prompt;
  PromptOptions text;
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
  if (ids.empty()) throw UserError("--ids", "there is no id", "write --ids 1,2,3");
  return ids;
}

// What is heard of a text is printed at once. Throws where standard output is closed.
void say(const std::string& piece) {
  fmt::print("{}", piece);
  if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category());
}

void check_flags(const GenerateArguments& arguments) {
  if (arguments.prompt.has_value() == !arguments.ids.empty())
    throw UserError("command line", "one of --prompt and --ids is needed", "give --prompt TEXT");
  if (!arguments.prompt && arguments.text.chat)
    throw UserError("--chat", "has no effect with --ids", "remove it, or give --prompt TEXT");
  if (!arguments.text.chat && (arguments.text.system || arguments.has_chat_template))
    throw UserError(arguments.text.system ? "--system" : "--chat-template", "has no effect without --chat",
                    "remove it, or add --chat");
  if (!arguments.prompt && !arguments.tokenizer.empty())
    throw UserError("--tokenizer", "has no effect with --ids", "remove it, or give --prompt TEXT");
  if (arguments.has_top_p && !arguments.has_temperature)
    throw UserError("--top-p", "has no effect without --temperature", "remove it, or add --temperature 1");
}

// What there is to continue, and what its answer is made of.
struct Task {
  FoundModel found;
  MixtralConfig config;
  std::optional<Prompter> prompter;  // none: of --ids
  TextEnds ends;
};

Task make_task(const GenerateArguments& arguments) {
  const FoundModel found = find_model_or_adapter(arguments.model, arguments.base);
  Task task = {.found = found, .config = load_mixtral_config(found.folder)};
  if (arguments.ids.empty())
    task.prompter.emplace(arguments.tokenizer.empty() ? found.tokenizer : model_folder(arguments.tokenizer),
                          task.config, arguments.text);
  task.ends = {.ids = end_of_text_ids(found.folder, task.config), .most_tokens = arguments.max_new_tokens};
  if (task.prompter) task.prompter->add_ends(task.ends.ids);
  return task;
}

// With room for prompts of up to `prompt` tokens.
Decoder make_decoder(const Task& task, int64_t sequences, size_t prompt, const Overrides& overrides) {
  const int64_t positions =
      std::min(static_cast<int64_t>(prompt) + task.ends.most_tokens, task.config.max_position_embeddings);
  const Config keys = load_config(std::nullopt, overrides);
  return {task.config,
          {task.found.folder, task.found.adapter},
          {.sequences = sequences, .positions = positions},
          instance_options(keys, State::Purpose::kInference)};
}

void continue_prompt(const GenerateArguments& arguments, const Overrides& overrides) {
  const Task task = make_task(arguments);
  std::vector<int32_t> ids =
      task.prompter ? task.prompter->encode(*arguments.prompt, "prompt") : parse_ids(arguments.ids);
  if (!task.prompter) check_prompt(ids, task.config, "prompt");
  if (!arguments.logits.empty()) check_output_file(arguments.logits, false);
  const size_t prompt = ids.size();
  Decoder decoder = make_decoder(task, 1, prompt, overrides);
  if (!arguments.logits.empty()) write_logits(decoder, ids, task.config.vocab_size, arguments.logits);
  if (task.prompter) {
    TextStream stream = task.prompter->stream(ids);
    continue_texts(decoder, {&ids, 1}, task.ends, arguments.sampling, [&](size_t) { say(stream.add(ids.back())); });
    say(stream.finish() + "\n");
  } else {
    continue_texts(decoder, {&ids, 1}, task.ends, arguments.sampling);
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
  app->add_flag("--chat", arguments->text.chat, "The prompt is a user's turn: wrap it as the chat template does");
  const CLI::Option* chat_template = app->add_option("--chat_template,--chat-template", arguments->text.chat_template,
                                                     "template of --chat; auto: what the folder says")
                                         ->type_name("NAME")
                                         ->capture_default_str();
  app->add_option("--system", arguments->text.system, "system text before the user's turn, with --chat")
      ->type_name("TEXT");
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
            check_flags(*arguments);
            continue_prompt(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
