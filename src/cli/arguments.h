// What CLI11 leaves to us: our one-line errors, and configuration keys as flags.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "config/load.h"

namespace mixtune {

// Configuration keys as flags of a subcommand, in the groups of the table.
class KeyFlags {
 public:
  // Of all keys, or of those whose group or name is in `some`.
  explicit KeyFlags(CLI::App& app, const std::vector<std::string_view>& some = {});

  // What was given, in the order of the table. Throws UserError for a flag without its value.
  Overrides overrides() const;

 private:
  struct Flag {
    std::string key;
    std::vector<std::string> values;
  };
  std::shared_ptr<std::vector<Flag>> flags_;  // shared, as the parser keeps pointers into it
};

// Has the help say of --precision, which `app` has, that it is chosen (choose_precision).
void describe_chosen_precision(CLI::App& app);

// Ends the help of `app` with `commands`, which anybody can run in the repository's folder after scripts/build.
void add_examples(CLI::App& app, std::initializer_list<std::string_view> commands);

// Parses the program's arguments and returns the command that their first words name (a subcommand, where it has some);
// none where --help was asked for, and answered. Where no command is given, prints help to standard error and throws
// Ended; throws UserError for whatever else is wrong with them.
const Command* parse_arguments(CLI::App& program, const std::vector<Command>& commands, std::vector<std::string> args);

}  // namespace mixtune
