#include "cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/suggest.h"
#include "config/foreign.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr std::string_view kMegatronArgs = "megatron_args";

// Help lines are written for the docs; a terminal shows no `code`.
std::string plain(std::string_view markdown) {
  std::string text(markdown);
  std::erase(text, '`');
  return text;
}

// --max-steps becomes --max_steps, and a boolean key that stands alone, or before its value, --packing=VALUE; so does a
// flag whose value may begin with hyphens.
std::vector<std::string> with_keys_spelled_out(const std::vector<std::string>& args) {
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const size_t equals = std::min(arg.find('='), arg.size());
    std::string name = arg.starts_with("--") ? arg.substr(2, equals - 2) : "";
    std::ranges::replace(name, '-', '_');
    if (name == kMegatronArgs) {
      out.push_back("--" + name + arg.substr(equals));
      if (equals == arg.size() && i + 1 < args.size()) out.back() += "=" + args[++i];
      continue;
    }
    const Key* key = find_key(name);
    if (key == nullptr) {
      out.push_back(arg);
      continue;
    }
    out.push_back("--" + name + arg.substr(equals));
    if (key->type != KeyType::kBoolean || equals != arg.size()) continue;
    const bool has_value = i + 1 < args.size() && is_boolean(args[i + 1]);
    out.back() += "=" + (has_value ? args[++i] : "true");
  }
  return out;
}

// "bench step"
std::string full_name(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  if (parent == nullptr || parent->get_parent() == nullptr) return app.get_name();
  return full_name(*parent) + " " + app.get_name();
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back(name);
  return names;
}

bool takes_all_keys(const CLI::App& app) {
  return app.get_option_no_throw("--train_file") != nullptr;
}

// How to mend the unknown flag --`name`, of which hyphens have become underscores.
std::string mend_of_flag(const CLI::App& app, const std::string& name) {
  const ForeignKey* foreign = find_foreign_key(name);
  const auto takes = [&](std::string_view key) {
    return app.get_option_no_throw("--" + std::string(key.substr(0, key.find(':')))) != nullptr;
  };
  if (foreign != nullptr && (takes_all_keys(app) || (!foreign->key.empty() && takes(foreign->key))))
    return hint(*foreign);
  const std::string help = fmt::format("'mixtune {} --help' lists the flags", full_name(app));
  if (find_key(name) != nullptr) return fmt::format("this command does not take that key: {}", help);
  std::vector<std::string> known = flag_names(app), spelled = known;
  for (std::string& flag : spelled) std::ranges::replace(flag, '-', '_');
  const std::string near = nearest_name(name.substr(0, 100), spelled);
  if (near.empty()) return help;
  return fmt::format("did you mean '--{}'?",
                     known[static_cast<size_t>(std::ranges::find(spelled, near) - spelled.begin())]);
}

bool is_flag(std::string_view arg) {
  return arg.size() > 1 && arg[0] == '-' && arg[1] != '.' && (arg[1] < '0' || arg[1] > '9');  // and no negative number
}

void check_extras(const CLI::App& app) {
  const std::vector<std::string> extras = app.remaining();
  std::vector<UserError> unknown;
  for (const std::string& arg : extras) {
    if (!is_flag(arg)) continue;
    const std::string flag = arg.substr(0, arg.find('='));
    std::string name = flag.substr(std::min(flag.find_first_not_of('-'), flag.size()));
    std::ranges::replace(name, '-', '_');
    unknown.emplace_back("command line", fmt::format("unknown flag '{}'", printable(flag)), mend_of_flag(app, name));
  }
  if (!unknown.empty()) throw_unknown("command line", unknown);
  if (extras.empty()) return;
  if (takes_all_keys(app)) check_config_name(extras.front());
  throw UserError("command line", fmt::format("unexpected argument '{}'", printable(extras.front())),
                  fmt::format("see 'mixtune {} --help'", full_name(app)));
}

// CLI11's messages start with the flag's name and a colon.
[[noreturn]] void throw_mismatch(const std::string& message) {
  const std::string flag = printable(message.substr(0, message.find(':')));
  if (message.find("At Most") != message.npos) throw UserError(flag, "is given twice", "give it once");
  throw UserError(flag, "needs a value", fmt::format("write {} VALUE", flag));
}

[[noreturn]] void throw_unknown_command(const std::vector<Command>& commands, std::string_view word) {
  std::vector<std::string> names;
  for (const Command& command : commands) names.push_back(command.app->get_name());
  const std::string near = nearest_name(word.substr(0, 100), names);
  throw UserError(
      "command line", fmt::format("unknown command '{}'", printable(word)),
      near.empty() ? fmt::format("use one of: {}", fmt::join(names, ", ")) : fmt::format("did you mean '{}'?", near));
}

// The command that the first words name, and those of which the next one may name one.
struct Found {
  const Command* command = nullptr;
  const std::vector<Command>* choices;
};
Found find_command(const std::vector<Command>& commands, const std::vector<std::string>& args) {
  Found found{.choices = &commands};
  for (const std::string& word : args) {
    if (found.choices->empty() || word.starts_with("-")) break;
    const auto named = std::ranges::find(*found.choices, word, [](const Command& c) { return c.app->get_name(); });
    if (named == found.choices->end()) throw_unknown_command(*found.choices, word);
    found = {&*named, &named->subcommands};
    named->app->require_subcommand(0, 1);  // a further word of such a name is an argument
  }
  if (found.choices->empty()) found.command->app->allow_extras();
  return found;
}

}  // namespace

KeyFlags::KeyFlags(CLI::App& app, const std::vector<std::string_view>& some)
    : flags_(std::make_shared<std::vector<Flag>>()) {
  const auto chosen = [&](std::string_view name) {
    return std::ranges::find(some, name) != some.end();
  };
  flags_->reserve(keys().size());
  for (const Key& key : keys()) {
    if (some.size() > 0 && !chosen(key.group) && !chosen(key.name)) continue;
    Flag& flag = flags_->emplace_back(Flag{std::string(key.name), {}});
    const Value value = key.get(Config());
    const std::string names = "--" + flag.key + (key.alias.empty() ? "" : fmt::format(",--{}", key.alias));
    app.add_option(names, flag.values, plain(key.help))
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->group(std::string(key.group))
        ->type_name(type_name(key))
        ->default_str(format_value(key, value));
  }
}

Overrides KeyFlags::overrides() const {
  Overrides overrides;
  for (const Flag& flag : *flags_) {
    for (const std::string& value : flag.values) {
      if (value.starts_with("--"))
        throw UserError("--" + flag.key, "needs a value", fmt::format("write --{} VALUE", flag.key));
      overrides.emplace_back(flag.key, value);
    }
  }
  return overrides;
}

void describe_chosen_precision(CLI::App& app) {
  CLI::Option* precision = app.get_option("--precision");
  precision->default_str("")->description(precision->get_description() +
                                          "; default: bf16 on a GPU for weights in bf16, else fp32");
}

void add_examples(CLI::App& app, std::initializer_list<std::string_view> commands) {
  std::string footer = app.get_footer();
  footer += footer.empty() ? "Examples:" : "\n\nExamples:";
  for (const std::string_view command : commands) footer += fmt::format("\n  {}", command);
  app.footer(footer);
}

const Command* parse_arguments(CLI::App& program, const std::vector<Command>& commands, std::vector<std::string> args) {
  if (!args.empty() && args.front() == "--version") args.front() = "version";
  if (!args.empty() && args.front() == "help") args.front() = "--help";
  program.require_subcommand(0, 1);
  const auto [command, choices] = find_command(commands, args);
  const std::string help_command = fmt::format("mixtune{} --help", command ? " " + full_name(*command->app) : "");
  args = with_keys_spelled_out(args);
  std::ranges::reverse(args);  // as CLI11 takes them
  try {
    program.parse(std::move(args));
  } catch (const CLI::Success& help) {
    program.exit(help);
    return nullptr;
  } catch (const CLI::ArgumentMismatch& error) {
    throw_mismatch(error.what());
  } catch (const CLI::ParseError& error) {
    throw UserError("command line", printable(error.what(), 300), fmt::format("see '{}'", help_command));
  }
  if (!choices->empty()) {                    // no command is given
    const std::string help = program.help();  // of the command, where its subcommand is missing
    std::fputs(help.c_str(), stderr);
    throw Ended{static_cast<int>(ExitCode::kUserError)};
  }
  check_extras(*command->app);
  return command;
}

}  // namespace mixtune
