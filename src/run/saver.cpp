#include "run/saver.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json_value.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "checkpoint/training_state.h"

namespace mixtune {

namespace {

using nlohmann::json;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The ranks on this rank's host.
int64_t neighbours(Ctx& ctx, const Ranks& ranks) {
  const std::vector<std::string> hosts = gather_texts(ctx, *ranks.all, "hosts", host_name());
  return std::ranges::count(hosts, host_name());
}

uint64_t sum_of(Ctx& ctx, const Ranks& ranks, uint64_t own) {
  uint64_t sum = 0;
  for (const std::string& text : gather_texts(ctx, *ranks.all, "bytes of checkpoints", std::to_string(own)))
    sum += std::stoull(text);
  return sum;
}

}  // namespace

struct Saver::Pending {
  Pending(const Manifest& of_it, OutputFolder* folder_of_run) : manifest(of_it), output(folder_of_run) {}

  int64_t step() const { return manifest.step; }

  Manifest manifest;
  OutputFolder* const output;
  const Clock::time_point start = Clock::now();
  double waited = 0;  // seconds of training
  std::optional<PendingCheckpoint> folder;
};

Saver::Saver(Ctx& ctx, const State& state, const Ranks& ranks, const SaveOptions& typical, const Options& options)
    : ctx_(ctx), state_(state), ranks_(ranks), options_(options) {
  const SavedBytes weights = saved_bytes(state, typical);
  const uint64_t training = options.only_model ? 0 : training_state_bytes(state, typical);
  own_bytes_ = weights.copied + training;
  training_bytes_ = sum_of(ctx, ranks, training);
  bytes_ = sum_of(ctx, ranks, weights.written) + training_bytes_;
  const uint64_t most = options.host_memory.value_or(available_memory({}) / (2 * neighbours(ctx, ranks)));
  // Each tensor ends at a multiple of the alignment, and a chunk may not fit in at the ring's end.
  const uint64_t whole = own_bytes_ + own_bytes_ / 64 + 2 * WriteBehind::kLeastBytes;
  behind_ = std::make_unique<WriteBehind>(ctx, std::min(most, whole), [this] { ranks_.advance(); });
}

std::string Saver::str() const {
  const bool fits = own_bytes_ <= behind_->bytes();
  return fmt::format("checkpoints of {} are written behind training{}", format_bytes(bytes_),
                     fits ? ""
                          : fmt::format(", which waits for all of a rank's {} but {} (checkpoint_host_memory)",
                                        format_bytes(own_bytes_), format_bytes(behind_->bytes())));
}

void Saver::begin(const Manifest& manifest, const SaveOptions& options, OutputFolder* output) {
  if (pending_) end();
  behind_->wait();  // for rank 0's commit
  failure_.clear();
  commit_failure_.clear();
  pending_ = std::make_shared<Pending>(manifest, output);
  SaveOptions all = options;
  all.more_bytes = training_bytes_;
  PendingCheckpoint& folder = pending_->folder.emplace(ctx_, state_, all, *ranks_.all, *behind_);
  if (!folder.folder().empty() && !options_.only_model) put_training_state(ctx_, state_, all, *ranks_.all, folder);
  pending_->waited = seconds_since(pending_->start);
}

// What this rank has written of the pending one, or why it could not.
std::string Saver::own_outcome() {
  json outcome = {{"files", describe_files(pending_->folder->written()->files())}, {"failure", ""}, {"bad", false}};
  try {
    if (const std::exception_ptr failure = behind_->take_failure()) std::rethrow_exception(failure);
  } catch (const Error& error) {
    outcome["failure"] = error.what();
    outcome["bad"] = error.exit_code() == ExitCode::kWentBad;
  } catch (const std::exception& error) {
    outcome["failure"] = error.what();
  }
  return outcome.dump();
}

void Saver::end() {
  const Clock::time_point start = Clock::now();
  behind_->wait();
  StoredFiles files;
  std::string failure;
  bool bad = false;
  const std::vector<std::string> outcomes = gather_texts(ctx_, *ranks_.all, "outcome of saving", own_outcome());
  for (size_t rank = 0; rank < outcomes.size(); ++rank) {
    const json outcome = json::parse(outcomes[rank]);
    files.merge(parse_files(outcome.at("files")));
    bad = bad || outcome.at("bad").get<bool>();
    if (const auto& own = outcome.at("failure").get_ref<const std::string&>(); failure.empty() && !own.empty())
      failure = outcomes.size() > 1 ? fmt::format("rank {}: {}", rank, own) : own;
  }
  pending_->waited += seconds_since(start);
  if (failure.empty())
    put_commit(files);
  else
    give_up(failure);
  if (bad) throw Error("", failure, "", ExitCode::kWentBad);
}

// Nothing of it is left; a file SAVE asks for no more of what cannot be written.
void Saver::give_up(const std::string& failure) {
  const std::shared_ptr<Pending> pending = std::exchange(pending_, nullptr);
  failure_ = failure;
  if (pending->output == nullptr) return;
  pending->output->end_save_wanted();
  log_warning("checkpoint-{} is not saved: {}", pending->step(), failure);
}

void Saver::put_commit(const StoredFiles& files) {
  const std::shared_ptr<Pending> pending = std::exchange(pending_, nullptr);
  if (pending->output == nullptr) return;
  behind_->put(behind_->new_queue(), [this, pending, files] {
    try {
      commit(*pending, files);
    } catch (const std::exception& error) {
      commit_failure_ = error.what();
      log_warning("checkpoint-{} is not saved: {}", pending->step(), error.what());
    }
  });
}

void Saver::commit(Pending& pending, const StoredFiles& files) {
  pending.manifest.mixtune = MIXTUNE_VERSION;
  pending.manifest.files = files;
  pending.folder->join_adapters(pending.manifest.files);
  if (!options_.only_model)
    write_file(pending.folder->folder() + "/" + kManifestFile, format_manifest(pending.manifest));
  pending.folder->commit();
  OutputFolder& output = *pending.output;
  output.write_latest(pending.step());
  output.end_save_wanted();
  const double seconds = seconds_since(pending.start);
  last_seconds_ = seconds;
  log_info("saved {}: {} in {:.1f} s, of which training waited {:.2f} s", output.checkpoint_path(pending.step()),
           format_bytes(bytes_), seconds, pending.waited);
  try {
    output.write_best(pending.step(), pending.manifest.evaluation);
    output.prune(options_.total_limit);
  } catch (const std::exception& error) {
    log_warning("{}; older checkpoints stay", error.what());
  }
}

void Saver::finish() {
  if (pending_) end();
  behind_->wait();
  const std::vector<std::string> commits = gather_texts(ctx_, *ranks_.all, "last checkpoint", commit_failure_);
  const std::string& failure = failure_.empty() ? commits[0] : failure_;
  if (!failure.empty()) throw Error("", fmt::format("the last checkpoint is not saved: {}", failure), "");
}

}  // namespace mixtune
