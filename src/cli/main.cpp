#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cli/arguments.h"
#include "cli/command.h"

namespace mixtune {
namespace {

void run(std::vector<std::string> args) {
  CLI::App program("Fine-tunes Mixtral models: from a Hugging Face folder to a Hugging Face folder.", "mixtune");
  const std::vector<Command> commands = {add_train(program),      add_evaluate(program), add_generate(program),
                                         add_preprocess(program), add_init(program),     add_inspect(program),
                                         add_version(program)};
  if (const Command* command = parse_arguments(program, commands, std::move(args))) command->run();
}

int fail(ExitCode code, std::string_view message) {
  std::fflush(stdout);
  log_line("mixtune: error", message);
  return static_cast<int>(code);
}

int run_and_report(std::vector<std::string> args) {
  try {
    run(std::move(args));
    if (std::fflush(stdout) != 0) return fail(ExitCode::kFailed, "standard output cannot be written");
    return static_cast<int>(ExitCode::kDone);
  } catch (const Error& error) {
    return fail(error.exit_code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::kFailed, "out of memory; use a smaller batch, shorter rows or a smaller model");
  } catch (const std::exception& error) {
    return fail(ExitCode::kFailed, printable(error.what(), 400));
  } catch (...) {
    return fail(ExitCode::kFailed, "internal error: an unknown exception; please report this");
  }
}

}  // namespace
}  // namespace mixtune

int main(int argc, char** argv) {
  return mixtune::run_and_report({argv + 1, argv + argc});
}
