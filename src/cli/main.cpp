#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/log.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/threads.h"
#include "tensor/out_of_memory.h"

namespace mixtune {
namespace {

// A write that cannot be done is an error to report, not a signal to die of; and no file that is opened later becomes
// standard output or error because the caller had closed those. Executed as /proc/self/exe, it would be called exe.
void prepare_process() {
  prctl(PR_SET_NAME, "mixtune");
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (int fd = 0; fd <= 2; ++fd)  // open() takes the lowest that is free
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != fd) std::_Exit(static_cast<int>(ExitCode::kFailed));
}

void run(std::vector<std::string> args) {
  CLI::App program("Fine-tunes Mixtral models: from a Hugging Face folder to a Hugging Face folder.", "mixtune");
  const std::vector<Command> commands = {
      add_train(program),    add_evaluate(program), add_generate(program), add_preprocess(program), add_init(program),
      add_export(program),   add_merge(program),    add_inspect(program),  add_diff(program),       add_report(program),
      add_estimate(program), add_bench(program),    add_doctor(program),   add_version(program)};
  program.footer("'mixtune COMMAND --help' lists a command's flags, and ends with examples.");  // of its own alone
  if (const Command* command = parse_arguments(program, commands, std::move(args))) command->run();
}

// Each line of `message` is an error of its own.
int fail(ExitCode code, std::string_view message) {
  std::fflush(stdout);
  for (size_t begin = 0, end = 0; end != message.npos; begin = end + 1) {
    end = message.find('\n', begin);
    log_line("mixtune: error", message.substr(begin, end - begin));
  }
  return static_cast<int>(code);
}

constexpr std::string_view kOutputFailed =
    "standard output: cannot be written in full; check where it goes for a full disk or a closed pipe";

int run_and_report(std::vector<std::string> args) {
  try {
    run(std::move(args));
    // A flush after the one that failed succeeds; the stream remembers.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) return fail(ExitCode::kFailed, kOutputFailed);
    return static_cast<int>(ExitCode::kDone);
  } catch (const Ended& ended) {
    return ended.exit_code;
  } catch (const OutOfMemory& error) {
    return fail(error.exit_code(), fmt::format("{}; {}", error.what(), kLessMemory));
  } catch (const Error& error) {
    return fail(error.exit_code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::kFailed, fmt::format("out of memory; {}", kLessMemory));
  } catch (const std::exception& error) {
    if (std::ferror(stdout) != 0) return fail(ExitCode::kFailed, kOutputFailed);
    return fail(ExitCode::kFailed, printable(error.what(), 400));
  } catch (...) {
    return fail(ExitCode::kFailed, "internal error: an unknown exception; please report this");
  }
}

}  // namespace
}  // namespace mixtune

int main(int argc, char** argv) {
  mixtune::let_threads_sleep(argv);
  mixtune::prepare_process();
  return mixtune::run_and_report({argv + 1, argv + argc});
}
