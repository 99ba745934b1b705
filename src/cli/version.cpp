#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "tensor/device.h"

namespace mixtune {

Command add_version(CLI::App& program) {
  CLI::App* app = program.add_subcommand("version", "Print the version and what this build can do");
  return {app, [] {
            const bool cuda = built_with_cuda();
            fmt::print("mixtune {}\ndevices: cpu{}\nprecision: fp32{}, fp8, mxfp8\n", MIXTUNE_VERSION,
                       cuda ? ", cuda" : "", cuda ? ", bf16 (cuda)" : "");
          }};
}

}  // namespace mixtune
