#include "disk_runs.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>
#include <stdexcept>

#include "base/test_paths.h"
#include "metrics/testing.h"

namespace mixtune {

namespace {

constexpr const char* kEvents = "runs/events";  // for all of a run's event files
const std::set<std::string> kRecords = {"metrics.jsonl", "runs"};
const std::set<std::string> kOfTheirTime = {"report.html", "environment.json"};  // they say when a run was

bool is_timed(const std::string& field) {
  return field.starts_with("rank_") || field == "milliseconds" || field == "tokens_per_second" ||
         field == "model_tflops" || field == "mfu" || field == "memory_gib" || field == "plans";
}

// What a record says on any machine.
std::string untimed(const std::string& line) {
  nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
  if (!record.is_object()) return line;
  for (auto field = record.begin(); field != record.end();)
    field = is_timed(field.key()) ? record.erase(field) : std::next(field);
  return record.dump();
}

// The same of an event file's events, a line each. The last may be cut.
std::string untimed_events(const std::string& path) {
  std::string lines;
  try {
    for (const SeenEvent& event : seen_events(path)) {
      if (event.scalars.empty()) continue;
      lines += fmt::format("{}", event.step);
      for (const auto& [tag, value] : event.scalars)
        if (!is_timed(tag) && tag != "iteration-time" && tag != "throughput" && tag != "eval_milliseconds")
          lines += fmt::format(" {}={}", tag, value);
      lines += '\n';
    }
  } catch (const std::runtime_error& error) {
    lines += error.what();
  }
  return lines;
}

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kSlowness = 3;  // of programs
#else
constexpr size_t kSlowness = 1;
#endif

bool is_temporary(const std::string& name) {
  return name.starts_with('.') && name.find(".tmp-") != name.npos;
}

}  // namespace

void expect_told(const Outcome& outcome, const std::string& part) {
  EXPECT_GT(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "mixtune: error: "), 1) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_TRUE(lines.back().starts_with("mixtune: error: ")) << outcome.err;
  for (const std::string& line : lines) EXPECT_TRUE(line.starts_with("mixtune: ")) << line;
  expect_part(lines.back(), part);
}

bool every_call() {
  const char* wanted = std::getenv("MIXTUNE_EVERY_CALL");
  return wanted != nullptr && *wanted != '\0';
}

Contents contents(const fs::path& folder) {
  Contents files;
  for (const auto& [path, content] : snapshot(folder)) {
    const std::string name = fs::relative(path, folder);
    if (name == ".lock") continue;
    if (name.starts_with("runs/events.")) {
      files[kEvents] += untimed_events(path);
      continue;
    }
    files[name] = kOfTheirTime.contains(name) ? "" : content;
    if (name != "metrics.jsonl") continue;
    std::string records;
    for (const std::string& line : lines_of(content)) records += untimed(line) + "\n";
    files[name] = records;
  }
  return files;
}

void DiskRuns::make_inputs() {
  setenv("OMP_NUM_THREADS", "1", 1);
  RankRuns::SetUp();
}

void DiskRuns::SetUp() {
  if (on_gpus()) GTEST_SKIP() << "bits are compared, and the disk is the same: on the CPU alone";
  make_inputs();
  kept_ = end_of_a_run(steps(0));
  whole_ = end_of_a_run(steps());
  ASSERT_TRUE(whole_.contains("checkpoint-4/manifest.json"));
  ASSERT_TRUE(kept_.contains("checkpoint-2/manifest.json"));
  ASSERT_EQ(whole_.at("best"), "checkpoint-4\n");
}

Contents DiskRuns::end_of_a_run(const Args& args) {
  done(args);
  Contents files = contents(path("out"));
  fs::remove_all(path("out"));
  return files;
}

Args DiskRuns::steps(int save_total_limit) {
  return train("out", {"--max_steps=4", "--save_steps=2", "--eval_steps=2", "--load_best_model_at_end",
                       "--per_device_train_batch_size=2", "--resume_from_checkpoint=auto", "--report_to=tensorboard",
                       fmt::format("--save_total_limit={}", save_total_limit)});
}

std::vector<Call> DiskRuns::chosen(const std::vector<Call>& calls, size_t stride) {
  if (every_call()) return calls;
  std::vector<Call> firsts, some;
  for (size_t i = 0; i < calls.size(); ++i)
    if (i == 0 || calls[i].name != calls[i - 1].name || calls[i].path != calls[i - 1].path) firsts.push_back(calls[i]);
  for (size_t i = 0; i < firsts.size(); i += stride * kSlowness) some.push_back(firsts[i]);
  return some;
}

Outcome DiskRuns::run_counted(const Args& args, const std::string& action, int at) const {
  const fs::path log = path("calls");
  fs::remove(log);
  const std::string library = program_path("libcountdown.so"), folder = fs::canonical(path(".")) / "out";
  // AddressSanitizer wants to be the first library.
  return run_shell(fmt::format("ASAN_OPTIONS=verify_asan_link_order=0:$ASAN_OPTIONS LD_PRELOAD={} "
                               "MIXTUNE_COUNTDOWN_FOLDER={} MIXTUNE_COUNTDOWN_LOG={} MIXTUNE_COUNTDOWN_ACTION={} "
                               "MIXTUNE_COUNTDOWN_AT={} exec \"$0\" {}",
                               library, folder, log.string(), action, at, fmt::join(args, " ")),
                   path("."));
}

Outcome DiskRuns::run_while(const Args& args, int at, const std::function<void()>& meanwhile) const {
  fs::remove(path("calls"));
  fs::remove(path("calls.go"));
  auto outcome = std::async(std::launch::async, [&] { return run_counted(args, "wait", at); });
  EXPECT_TRUE(comes_true([&] { return count_of(read(path("calls")), "\n") >= at; }));
  meanwhile();
  write(path("calls.go"), "");
  return outcome.get();
}

std::vector<Call> DiskRuns::calls() const {
  std::vector<Call> calls;
  for (const std::string& line : lines_of(read(path("calls")))) {
    std::istringstream words(line);
    Call& call = calls.emplace_back();
    words >> call.number >> call.name >> call.path;
  }
  return calls;
}

void DiskRuns::expect_sound(int ended_at, bool killed) const {
  if (!fs::exists(path("out"))) return;
  const Contents found = contents(path("out"));
  for (const auto& [name, content] : found) {
    const std::string top = *fs::path(name).begin();
    if (is_temporary(top) || kRecords.contains(top) || top == "latest" || top == "best") continue;
    ASSERT_TRUE(kept_.contains(name)) << name << " is of no run";
    // One run says that it keeps all checkpoints.
    EXPECT_TRUE(content == (top == "config.resolved.yaml" ? whole_ : kept_).at(name)) << name << " differs";
  }
  for (const auto& [name, content] : kept_) {
    const std::string top = *fs::path(name).begin();
    if (top.starts_with("checkpoint-") && found.contains(top)) {
      EXPECT_TRUE(found.contains(name)) << name << " is missing";
    }
  }
  for (const std::string file : {"latest", "best"})
    if (fs::exists(path("out") / file)) {
      const std::string named = read(path("out") / file);
      EXPECT_TRUE(named == "checkpoint-2\n" || named == "checkpoint-4\n") << named;
      EXPECT_TRUE(fs::exists(path("out") / named.substr(0, named.size() - 1))) << file << " names " << named;
    }
  expect_checkpoints(ended_at);
  expect_metrics(killed);
}

void DiskRuns::expect_checkpoints(int ended_at) const {
  std::map<std::string, bool> in_place;
  for (const Call& call : calls()) {
    const std::string file = call.file();
    const bool to = file.starts_with("checkpoint-"), from = file.starts_with(".checkpoint-");
    if (call.name != "rename" || (!to && !from)) continue;
    const std::string name = to ? file : file.substr(1, file.find(".tmp-") - 1);
    in_place[name] = to;
    if (call.number == ended_at) in_place.erase(name);  // made or not
  }
  for (const auto& [name, is_there] : in_place)
    if (is_there) {
      EXPECT_TRUE(fs::exists(path("out") / name)) << name << " is lost";
    }
}

void DiskRuns::expect_metrics(bool killed) const {
  const std::string records = read(path("out/metrics.jsonl"));
  if (!killed) {
    EXPECT_TRUE(records.empty() || records.ends_with('\n')) << records;
  }
  std::istringstream lines(records);
  for (std::string line; std::getline(lines, line) && !lines.eof();) EXPECT_TRUE(nlohmann::json::accept(line)) << line;
}

void DiskRuns::expect_whole(const Contents& found, bool lost_records) const {
  for (const auto& [name, content] : found) {
    ASSERT_TRUE(whole_.contains(name)) << name << " is left";
    if (!kRecords.contains(*fs::path(name).begin()) || !lost_records) {
      EXPECT_TRUE(content == whole_.at(name)) << name << " differs";
    }
  }
  EXPECT_EQ(found.size(), whole_.size());
  for (const char* name : {"metrics.jsonl", kEvents})
    for (const std::string& line : lines_of(found.at(name))) expect_part(whole_.at(name), line);
}

void DiskRuns::expect_resumes_to_the_end(bool lost_records) const {
  const Outcome outcome = run(steps());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  expect_whole(contents(path("out")), lost_records);
}

void DiskRuns::begin_with(const std::string& prepared) const {
  fs::remove_all(path("out"));
  if (!prepared.empty()) fs::copy(path(prepared), path("out"), fs::copy_options::recursive);
}

void DiskRuns::kill_at_each(const std::vector<Call>& at, const std::string& prepared) const {
  for (const Call& call : at) {
    SCOPED_TRACE("killed at call " + call.str());
    begin_with(prepared);
    const Outcome outcome = run_counted(steps(), "kill", call.number);
    const auto made = static_cast<int>(calls().size());  // threads may take turns otherwise, and need one call less
    EXPECT_TRUE(outcome.code == -1 || (outcome.code == 0 && made < call.number)) << outcome.err;
    expect_sound(call.number, true);
    expect_resumes_to_the_end();
    if (HasFailure()) return;
  }
}

}  // namespace mixtune
