#include "run/output_folder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/run_folder.h"
#include "run/event_files.h"
#include "run/manifest.h"
#include "run/records.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCheckpoint = "checkpoint-";
constexpr const char *kTrace = "trace.json", *kSave = "SAVE", *kEvents = "runs";
constexpr std::array kFiles = {kLatestFile,      kBestFile,   kMetricsFile, kResolvedFile,
                               kEnvironmentFile, kReportFile, kTrace};

// Checks that the nearest existing folder on the way to `path` can be written.
void check_place(const std::string& path) {
  for (std::string place = path;; place = parent_folder(place)) {
    std::error_code error;
    const fs::file_status status = fs::status(place, error);
    if (!fs::exists(status) && place != "/" && place != ".") continue;
    if (!fs::is_directory(status))
      throw UserError(printable_path(path),
                      place == path ? "is a file, not a folder" : fmt::format("{} is a file", printable_path(place)),
                      "choose another output_dir");
    if (access(place.c_str(), W_OK | X_OK) != 0)
      throw UserError(printable_path(path),
                      fmt::format("{} cannot be written: {}", printable_path(place), std::strerror(errno)),
                      "choose another output_dir");
    return;
  }
}

// Whether `path` is `folder` or lies in it, whatever links lead there.
bool is_within(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path inner = fs::weakly_canonical(path, error), outer = fs::weakly_canonical(folder, error);
  return !error && std::ranges::mismatch(outer, inner).in1 == outer.end();
}

// The name of something that a run has left, or that it would replace; "" where there is nothing. An empty
// metrics.jsonl is that of a run that ended before its first record: the files beside it are that run's own.
std::string result_in(const std::string& path) {
  std::error_code error;
  const auto kind = [&](const char* name) {
    return fs::symlink_status(path + "/" + name, error).type();
  };
  const auto is_there = [&](const char* name) {
    return fs::exists(fs::file_status(kind(name)));
  };
  const bool recorded_nothing =
      kind(kMetricsFile) == fs::file_type::regular && fs::file_size(path + "/" + kMetricsFile, error) == 0;
  if (const std::vector<int64_t> steps = checkpoint_steps(path); !steps.empty()) return checkpoint_name(steps.back());
  for (const char* name : {kLatestFile, kBestFile})
    if (is_there(name)) return name;
  if (recorded_nothing) return "";
  for (const char* name : kFiles)
    if (is_there(name)) return name;
  return has_event_files(path + "/" + kEvents) ? kEvents : "";
}

void check_inputs(const OutputRequest& request) {
  std::error_code error;
  for (const std::string& input : request.inputs) {
    if (fs::is_directory(input, error) && is_within(request.path, input))
      throw UserError(printable_path(request.path),
                      fmt::format("lies in {}, which the run reads", printable_path(input)),
                      "choose an output_dir of its own");
    for (const char* file : kFiles)
      if (fs::equivalent(input, request.path + "/" + file, error))
        throw UserError(printable_path(request.path),
                        fmt::format("the run reads {}, which it would replace", printable_path(input)),
                        "choose another output_dir");
    for (const int64_t step : checkpoint_steps(request.path))
      if (step > request.resumes.value_or(-1) && is_within(input, request.path + "/" + checkpoint_name(step)))
        throw UserError(printable_path(request.path),
                        fmt::format("the run reads {}, which it would remove", printable_path(input)),
                        "choose another output_dir");
  }
}

bool is_whole(const std::string& checkpoint) {
  try {
    read_manifest(checkpoint);
    return true;
  } catch (const Error&) {
    return !has_manifest(checkpoint);  // a model alone is whole without
  }
}

// What came after the checkpoint that a run goes on from.
void check_newer(const OutputRequest& request) {
  for (const int64_t step : checkpoint_steps(request.path))
    if (step > *request.resumes && is_whole(request.path + "/" + checkpoint_name(step)))
      throw UserError(printable_path(request.path),
                      fmt::format("holds {}, newer than {}, from which the run is to go on", checkpoint_name(step),
                                  checkpoint_name(*request.resumes)),
                      fmt::format("{}choose another output_dir, or set overwrite_output_dir: true to remove it",
                                  has_manifest(request.path + "/" + checkpoint_name(step)) ? "go on from that, " : ""));
}

void check_results(const OutputRequest& request) {
  if (request.overwrite) return;
  if (request.resumes) return check_newer(request);
  if (request.may_start_over && checkpoint_steps(request.path).empty()) return;
  if (const std::string result = result_in(request.path); !result.empty())
    throw UserError(printable_path(request.path), fmt::format("holds the results of another run ({})", result),
                    "choose another output_dir, or set overwrite_output_dir: true to replace them");
}

void remove_file(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);  // removes a link, not its target
  if (error)
    throw UserError(printable_path(path), fmt::format("cannot be removed: {}", error.message()),
                    "choose another output_dir");
}

// Of a checkpoint that is not whole: nothing is lost that a user may want to look at.
void set_aside(const std::string& path) {
  const std::string aside = fmt::format("{}.not-whole-{}", path, unguessable_word().substr(0, 8));
  std::error_code error;
  fs::rename(path, aside, error);
  if (error)
    throw UserError(printable_path(path), fmt::format("cannot be renamed: {}", error.message()),
                    "check the folder's permissions");
  log_warning("{} is not whole: it is now {}", printable_path(path), printable_path(aside));
}

OutputRequest checked(OutputRequest request) {
  check_output_folder(request);
  request.path = without_trailing_slash(request.path);
  return request;
}

// The oldest of these checkpoints, without which there are no more than the limit; never the newest, nor the best.
std::vector<int64_t> too_many(const std::vector<int64_t>& steps, int64_t save_total_limit,
                              std::optional<int64_t> best) {
  std::vector<int64_t> old;
  for (size_t i = 0; i + 1 < steps.size(); ++i)
    if (save_total_limit > 0 && steps.size() - old.size() > static_cast<size_t>(save_total_limit) && steps[i] != best)
      old.push_back(steps[i]);
  return old;
}

// The checkpoints that a run which goes on after `last` keeps.
std::vector<int64_t> steps_up_to(const std::string& path, int64_t last) {
  std::vector<int64_t> steps = checkpoint_steps(path);
  std::erase_if(steps, [&](int64_t step) { return step > last; });
  return steps;
}

}  // namespace

void check_output_folder(const OutputRequest& request) {
  check_place(without_trailing_slash(request.path));
  if (request.makes_events) check_event_folder(request.path + "/" + kEvents);
  check_inputs(request);
  check_unclaimed(request.path);
  check_results(request);
}

// Looks for results again: another run may have ended between the first look and the lock.
OutputFolder::OutputFolder(const OutputRequest& request)
    : request_(checked(request)), claim_(request_.path), best_(request_.best_metric) {
  check_results(request_);
}

void OutputFolder::begin() {
  check_results(request_);
  claim_.keep();
  remove_stale(path(), kCheckpoint);
  for (const char* name : kFiles) remove_stale(path(), name);
  if (request_.resumes) return go_on(*request_.resumes);
  for (const char* name : kFiles) remove_file(file(name));
  remove_event_files(file(kEvents));
  for (const int64_t step : checkpoint_steps(path())) remove_whole(checkpoint_path(step));
}

void OutputFolder::go_on(int64_t after) {
  name_newest(after);
  for (const int64_t step : checkpoint_steps(path())) {
    if (step <= after) continue;
    if (request_.overwrite)
      remove_whole(checkpoint_path(step));
    else
      set_aside(checkpoint_path(step));
  }
  cut_records(metrics_path(), after);
  cut_event_files(file(kEvents), after);
}

std::string OutputFolder::metrics_path() const {
  return file(kMetricsFile);
}

std::string OutputFolder::trace_path() const {
  return file(kTrace);
}

std::string OutputFolder::new_event_path() const {
  return new_event_file(file(kEvents));
}

std::string OutputFolder::checkpoint_path(int64_t step) const {
  return path() + "/" + checkpoint_name(step);
}

void OutputFolder::write_config(std::string_view text) const {
  write_whole_file(file(kResolvedFile), text, request_.resumes ? Existing::kReplaced : Existing::kRefused);
}

void OutputFolder::write_environment(std::string_view text) const {
  write_whole_file(file(kEnvironmentFile), text, request_.resumes ? Existing::kReplaced : Existing::kRefused);
}

uint64_t OutputFolder::bytes_to_fill() const {
  uint64_t bytes = free_space(path());
  if (!request_.overwrite || request_.resumes) return bytes;
  for (const int64_t step : checkpoint_steps(path()))
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(checkpoint_path(step)))
      if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

bool OutputFolder::save_wanted() const {
  return is_taken(file(kSave));
}

void OutputFolder::end_save_wanted() const {
  unlink(file(kSave).c_str());
}

bool OutputFolder::is_closed(const OutputRequest& request, int64_t save_total_limit) {
  const std::vector<int64_t> steps = checkpoint_steps(request.path);
  BestCheckpoint known(request.best_metric);
  known.read(request.path);
  const std::optional<int64_t> best = known.among(steps_up_to(request.path, *request.resumes));
  return named_step(request.path, kLatestFile) == request.resumes && named_step(request.path, kBestFile) == best &&
         too_many(steps, save_total_limit, best).empty() && !has_stale(request.path, kCheckpoint);
}

void OutputFolder::close(int64_t save_total_limit) {
  claim_.keep();
  remove_stale(path(), kCheckpoint);
  name_newest(*request_.resumes);
  prune(save_total_limit);
}

void OutputFolder::name_newest(int64_t step) {
  best_.read(path());
  write_latest(step);
  name_best(steps_up_to(path(), step));
}

void OutputFolder::write_latest(int64_t step) const {
  write_whole_file(file(kLatestFile), checkpoint_name(step) + "\n", Existing::kReplaced);
}

void OutputFolder::write_best(int64_t step, const Evaluation& evaluation) {
  if (!best_.is_asked_for()) return;
  best_.add(step, evaluation);
  name_best(checkpoint_steps(path()));
}

// With none there is no such file. What is there and no file is the user's own.
void OutputFolder::name_best(const std::vector<int64_t>& steps) const {
  if (const std::optional<int64_t> best = best_.among(steps)) {
    write_whole_file(file(kBestFile), checkpoint_name(*best) + "\n", Existing::kReplaced);
  } else if (fs::is_regular_file(fs::symlink_status(file(kBestFile)))) {
    remove_file(file(kBestFile));
    sync_folder(path());
  }
}

std::string OutputFolder::best_str() const {
  const std::optional<int64_t> best = best_.among(checkpoint_steps(path()));
  return best ? fmt::format("{}, {}", checkpoint_name(*best), best_.str(*best)) : "";
}

void OutputFolder::prune(int64_t save_total_limit) const {
  const std::vector<int64_t> steps = checkpoint_steps(path());
  for (const int64_t step : too_many(steps, save_total_limit, best_.among(steps))) remove_whole(checkpoint_path(step));
}

}  // namespace mixtune
