#include <fmt/format.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/arguments.h"
#include "cli/generate_modes.h"

namespace mixtune {

namespace {

// Which flags were given, whatever their values.
struct GivenFlags {
  const CLI::App& app;
  bool operator[](const char* flag) const { return app.count(flag) > 0; }
};

// A flag that has no effect without what it is for.
void check_use(const GivenFlags& given, const char* flag, bool useful, std::string_view without,
               std::string_view mend) {
  if (given[flag] && !useful) throw UserError(flag, fmt::format("has no effect {}", without), mend);
}

void check_flags(const GivenFlags& given) {
  const int sources = given["--prompt"] + given["--prompts"] + given["--ids"];
  const bool chat = given["--chat"], text = !given["--ids"];
  if (sources > 1 || (sources == 0 && !chat))
    throw UserError("command line", "one of --prompt, --prompts and --ids is needed",
                    "give --prompt TEXT, or --chat alone to talk");
  check_use(given, "--chat", text, "with --ids", "remove it, or give --prompt TEXT");
  check_use(given, "--system", chat, "without --chat", "remove it, or add --chat");
  check_use(given, "--chat-template", chat, "without --chat", "remove it, or add --chat");
  check_use(given, "--tokenizer", text, "with --ids", "remove it, or give --prompt TEXT");
  check_use(given, "--batch", given["--prompts"], "without --prompts", "remove it, or give --prompts FILE");
  check_use(given, "--max-length", chat && sources == 0, "outside a conversation",
            "remove it, or give --chat without a prompt");
  check_use(given, "--logits", given["--prompt"] || given["--ids"], "without --prompt or --ids", "remove it");
  check_use(given, "--top-p", given["--temperature"], "without --temperature", "remove it, or add --temperature 1");
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
  app->add_option("--prompts", arguments->prompts,
                  "file with a prompt a line, \"TEXT\" or {\"prompt\": \"TEXT\"}; prints a JSON object for each")
      ->type_name("FILE");
  app->add_option("--batch", arguments->batch, "prompts of --prompts at once")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{4096}));
  app->add_flag("--chat", arguments->text.chat,
                "A prompt is a user's turn, in the chat template; without one: talk, a line of standard input a turn");
  app->add_option("--chat_template,--chat-template", arguments->text.chat_template,
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
  app->add_option(
         "--max-length", arguments->max_length,
         "tokens of a conversation at most, for which memory is taken; the model's positions are the limit too")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20));
  app->add_option("--temperature", arguments->sampling.temperature, "0: always the likeliest token")
      ->type_name("NUMBER")
      ->capture_default_str()
      ->check(number_within(0, 100));
  app->add_option("--top-p", arguments->sampling.top_p,
                  "choose from the likeliest tokens with this probability together")
      ->type_name("NUMBER")
      ->capture_default_str()
      ->check(number_within(0, 1));
  app->add_option("--seed", arguments->sampling.seed, "seed of the choices")
      ->type_name("INTEGER")
      ->capture_default_str();
  app->add_option("--tokenizer", arguments->tokenizer, "folder of the tokenizer; default: MODEL")->type_name("FOLDER");
  add_nproc(*app, arguments->ranks);
  const KeyFlags flags(*app, {"device", "precision", "fp8_scaling", "fp8_power_of_two_scales", "base_precision",
                              "expert_model_parallel_size", "collective_timeout"});
  describe_chosen_precision(*app);
  add_examples(
      *app, {"mixtune generate examples/quickstart/pretrained --prompt \"Once upon a time\" --max-new-tokens 20",
             "mixtune generate examples/quickstart/pretrained --prompts examples/quickstart/prompts.jsonl "
             "--max-new-tokens 20",
             "mixtune generate examples/quickstart/pretrained --chat",
             "mixtune generate examples/quickstart/pretrained --prompts examples/quickstart/prompts.jsonl "
             "--max-new-tokens 20 --nproc 2 --expert_model_parallel_size 2 --device cpu",
             "mixtune generate examples/quickstart/pretrained --ids 1,345,1200 --max-new-tokens 20 --temperature "
             "0.8 --seed 1",
             "mixtune generate examples/quickstart/pretrained --chat --system \"Be brief.\" --prompt \"Define: daisy "
             "(noun)\" --max-new-tokens 20"});
  return {app, [app, arguments, flags] {
            check_flags({*app});
            generate(*arguments, flags.overrides());
          }};
}

}  // namespace mixtune
