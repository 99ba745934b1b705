// The subcommands. Each add_ function registers one with its flags; what it does is called after parsing.
#pragma once

#include <functional>
#include <vector>

namespace CLI {
class App;
}

namespace mixtune {

// Thrown where the program is to end with this code, and what there is to say has been, or is another process's.
struct Ended {
  int exit_code;
};

struct Command {
  CLI::App* app;
  std::function<void()> run;
  std::vector<Command> subcommands = {};  // where there are some, one of them is run instead
};

Command add_train(CLI::App& program);
Command add_evaluate(CLI::App& program);
Command add_generate(CLI::App& program);
Command add_preprocess(CLI::App& program);
Command add_bench(CLI::App& program);
Command add_doctor(CLI::App& program);
Command add_estimate(CLI::App& program);
Command add_init(CLI::App& program);
Command add_export(CLI::App& program);
Command add_merge(CLI::App& program);
Command add_diff(CLI::App& program);
Command add_inspect(CLI::App& program);
Command add_report(CLI::App& program);
Command add_version(CLI::App& program);

}  // namespace mixtune
