#include "report/report.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "cli/arguments.h"

namespace mixtune {

namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out;
  bool overwrite = false;
};

void write_page(const ReportArguments& arguments) {
  check_output_file(arguments.out, arguments.overwrite);
  write_whole_file(arguments.out, report_page(read_runs(arguments.runs)),
                   arguments.overwrite ? Existing::kReplaced : Existing::kRefused);
}

void run_report(const ReportArguments& arguments) {
  for (const std::string& run : arguments.runs)
    if (run.empty()) throw UserError("RUN", "is empty", "name a run's output folder");
  if (arguments.out.empty() && arguments.runs.size() > 1)
    throw UserError("--out", "is needed where runs are compared", "name the page that is to be written");
  if (!arguments.out.empty()) write_page(arguments);
  fmt::print("{}\n", printable_path(arguments.out.empty() ? write_report(arguments.runs[0]) : arguments.out));
}

}  // namespace

Command add_report(CLI::App& program) {
  CLI::App* app = program.add_subcommand("report", "Draw the curves of a run, or compare runs, on one page");
  const auto arguments = std::make_shared<ReportArguments>();
  app->add_option("RUN", arguments->runs, "output folders of runs, finished or not; several are compared")
      ->type_name("FOLDER")
      ->required();
  app->add_option("--out", arguments->out, "the page; of one run, without it, its folder's report.html, made anew")
      ->type_name("FILE");
  app->add_flag("--overwrite", arguments->overwrite, "Replace the file of --out");
  add_examples(*app, {"mixtune report out/run1", "mixtune report out/run1 out/run2 --out compared.html"});
  return {app, [arguments] {
            run_report(*arguments);
          }};
}

}  // namespace mixtune
