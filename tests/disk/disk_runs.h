// DiskRuns: training runs whose calls to the disk go wrong, one chosen call of each run (countdown.cpp), and what must
// hold after that.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../cli/rank_runs.h"

namespace mixtune {

// The run failed, and said in one line why: with this part.
void expect_told(const Outcome& outcome, const std::string& part);

// A counted call of a run.
struct Call {
  int number = 0;
  std::string name, path;

  std::string str() const { return fmt::format("{} {} {}", number, name, path); }
  std::string file() const { return fs::path(path).filename(); }
};

// The content of files, by their path in a folder; of a metrics.jsonl, and of all event files together, what does not
// depend on the machine, and no .lock.
using Contents = std::map<std::string, std::string>;
Contents contents(const fs::path& folder);

// Whether MIXTUNE_EVERY_CALL asks for the tests that take long.
bool every_call();

// A run of four steps, saved and evaluated after the second and the fourth, that keeps one checkpoint, the newest and
// the best in one. Each run is told
// to go on with what there is, as a job's script does. On one thread, so that many are quick.
class DiskRuns : public RankRuns {
 protected:
  void SetUp() override;
  void make_inputs();

  static Args steps(int save_total_limit = 1);
  // Those that a test is to make go wrong: the first of neighbours of one kind and file, of these each `stride`-th, and
  // fewer where programs are slow; or all with MIXTUNE_EVERY_CALL.
  static std::vector<Call> chosen(const std::vector<Call>& calls, size_t stride = 1);

  // Runs with the call number `at` going wrong by `action`; 0: none.
  Outcome run_counted(const Args& args, const std::string& action = "", int at = 0) const;
  // The calls of the last such run, the one that went wrong too.
  std::vector<Call> calls() const;
  // Runs, and calls `meanwhile` when the call number `at` is about to be made.
  Outcome run_while(const Args& args, int at, const std::function<void()>& meanwhile) const;

  // Whatever has its final name in `out` is whole: checkpoints have the bytes of a run that was never stopped, and
  // `latest` and `best` name one. Every checkpoint that the last counted run had put in place, `ended_at` that call, is
  // there unless it was pruned. `killed`: the last record may be cut.
  void expect_sound(int ended_at, bool killed) const;
  // What is in `out` is what a run leaves that was never stopped, and nothing else.
  void expect_whole() const { expect_whole(contents(path("out")), false); }
  // The same command again ends so. `lost_records`: but for records of the metrics.
  void expect_resumes_to_the_end(bool lost_records = false) const;

  // Makes the run with each of `at` going wrong from `prepared` on, and checks both.
  void kill_at_each(const std::vector<Call>& at, const std::string& prepared = "") const;
  void begin_with(const std::string& prepared) const;

 private:
  void expect_whole(const Contents& found, bool lost_records) const;
  void expect_checkpoints(int ended_at) const;
  void expect_metrics(bool killed) const;
  Contents end_of_a_run(const Args& args);

  Contents whole_;  // what a run leaves
  Contents kept_;   // with all of its checkpoints
};

}  // namespace mixtune
