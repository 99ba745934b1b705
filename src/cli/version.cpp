#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/command.h"

namespace mixtune {

Command add_version(CLI::App& program) {
  CLI::App* app = program.add_subcommand("version", "Print the version and what this build can do");
  return {app, [] {
            fmt::print("mixtune {}\ndevices: cpu\nprecision: fp32\n", MIXTUNE_VERSION);
          }};
}

}  // namespace mixtune
