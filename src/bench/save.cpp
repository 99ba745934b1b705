#include "bench/save.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json_value.h"
#include "base/log.h"
#include "base/median.h"
#include "bench/measure.h"
#include "bench/steps.h"
#include "checkpoint/load.h"
#include "checkpoint/training_state.h"
#include "kernels/digest.h"
#include "run/manifest.h"
#include "run/saver.h"
#include "train/instance_options.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// The largest of all ranks' numbers.
double largest(Instance& instance, double own) {
  double found = own;
  for (const std::string& text : gather_texts(instance.ctx(), *instance.ranks().all, "figures", fmt::format("{}", own)))
    found = std::max(found, std::stod(text));
  return found;
}

double rate(uint64_t bytes, double milliseconds) {
  return static_cast<double>(bytes) / (milliseconds * 1e6);
}

std::vector<int64_t> digests_of(Instance& instance) {
  const State& state = instance.state();
  std::vector<Tensor> tensors;
  for (int param = 0; param < state.size(); ++param)
    for (const Tensor& tensor :
         {state.weight(param), state.master(param), state.first_moment(param), state.second_moment(param)})
      if (tensor) tensors.push_back(tensor);
  return read_digests(instance.ctx(), tensors);
}

// A config.json of the shape, for whoever opens the checkpoints.
std::string config_json_of(const MixtralConfig& shape) {
  nlohmann::ordered_json object = {{"model_type", "mixtral"},
                                   {"vocab_size", shape.vocab_size},
                                   {"hidden_size", shape.hidden_size},
                                   {"intermediate_size", shape.intermediate_size},
                                   {"num_hidden_layers", shape.num_hidden_layers},
                                   {"num_attention_heads", shape.num_attention_heads},
                                   {"num_key_value_heads", shape.num_key_value_heads},
                                   {"head_dim", shape.head_dim},
                                   {"num_local_experts", shape.num_local_experts},
                                   {"num_experts_per_tok", shape.num_experts_per_tok},
                                   {"max_position_embeddings", shape.max_position_embeddings},
                                   {"rope_theta", shape.rope_theta},
                                   {"rms_norm_eps", shape.rms_norm_eps},
                                   {"initializer_range", shape.initializer_range},
                                   {"router_aux_loss_coef", shape.router_aux_loss_coef},
                                   {"tie_word_embeddings", shape.tie_word_embeddings}};
  if (shape.sliding_window > 0) object["sliding_window"] = shape.sliding_window;
  return object.dump(2) + "\n";
}

// The saves of a bench, as a run makes them.
class Saves {
 public:
  Saves(const SaveBench& bench, Instance& instance, Steps& steps) : instance_(instance), steps_(steps) {
    options_ = {.config_json = config_json_of(instance.model().config()), .dtype = instance.model().dtype()};
    if (instance.ranks().grid.rank == 0) {
      output_.emplace(OutputRequest{.path = bench.folder});
      output_->begin();
    }
    saver_.emplace(instance.ctx(), instance.state(), instance.ranks(), options_,
                   Saver::Options{.host_memory = bench.host_memory, .total_limit = 1});
  }

  const Saver& saver() const { return *saver_; }

  // With nothing beside it. Returns the milliseconds until training could go on, and until it is on the disk.
  std::pair<double, double> alone() {
    wait(instance_.ctx());
    const auto start = Clock::now();
    begin();
    wait(instance_.ctx());
    const double copied = milliseconds_since(start);
    saver_->finish();
    return {copied, last_milliseconds()};
  }

  // Beside steps: the milliseconds of each until all ranks are settled, the first with the save's beginning; and until
  // it is on the disk.
  std::pair<std::vector<double>, double> beside() {
    wait(instance_.ctx());
    std::vector<double> steps;
    const auto start = Clock::now();
    begin();
    for (bool settled = false; !settled;) {
      const auto began = steps.empty() ? start : Clock::now();
      steps_.run({.settled = saver_->is_settled()});
      settled = steps_.read().requests.settled;
      steps.push_back(milliseconds_since(began));
    }
    saver_->finish();
    return {steps, last_milliseconds()};
  }

  // Rank 0 alone sees it; the largest is that of all ranks.
  double last_milliseconds() const { return saver_->last_seconds() * 1e3; }

  std::string last() const { return options_.out_folder; }

 private:
  void begin() {
    ++number_;
    State& state = instance_.state();
    state.weight_sync().await_all(instance_.ctx());
    MT_CHECK(state.replica_differences(instance_.ctx(), instance_.ranks().grid.rank).empty());
    const std::string own = output_ ? output_->checkpoint_path(number_) : "";
    options_.out_folder = gather_texts(instance_.ctx(), *instance_.ranks().all, "folder", own)[0];
    saver_->begin({.step = number_}, options_, output_ ? &*output_ : nullptr);
  }

  Instance& instance_;
  Steps& steps_;
  SaveOptions options_;
  std::optional<OutputFolder> output_;  // rank 0's
  std::optional<Saver> saver_;
  int64_t number_ = 0;
};

// Has this machine forget what it holds of the folder's files, which are on the disk.
void drop_cached(const std::string& folder) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const InputFile file(entry.path().string());
    posix_fadvise(file.fd().get(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

// `saved`: the digests of what was.
void add_reading(SaveBenchResult& result, Instance& instance, const std::string& folder, bool cold,
                 const std::vector<int64_t>& saved) {
  Ctx& ctx = instance.ctx();
  if (cold) drop_cached(folder);
  const HfFolder weights(folder);
  const StoredFiles written = read_manifest(folder).files;
  barrier(ctx, *instance.ranks().all, "reading");
  auto start = Clock::now();
  load_weights(ctx, weights, instance.state(), written);
  result.weights_rate = rate(weights.bytes(), largest(instance, milliseconds_since(start)));
  start = Clock::now();
  load_training_state(ctx, folder, instance.state(), written);
  result.state_rate = rate(result.bytes - weights.bytes(), largest(instance, milliseconds_since(start)));
  result.same = largest(instance, digests_of(instance) == saved ? 0 : 1) == 0;
}

}  // namespace

SaveBenchResult bench_save(const SaveBench& bench) {
  Instance instance(bench.step.model, bench.step.options);
  fill_weights(instance);
  warm_up(instance, limits_of(bench.step));
  Steps steps(bench.step, instance);
  Saves saves(bench, instance, steps);
  steps.settle(bench.step.settle);

  SaveBenchResult result;
  result.device = device_name(bench.step.options.device);
  result.bytes = saves.saver().checkpoint_bytes();
  result.copied_bytes = saves.saver().copied_bytes();
  result.host_bytes = saves.saver().host_bytes();
  std::vector<double> plain;
  for (int i = 0; i < bench.step.steps; ++i) {
    const auto start = Clock::now();
    steps.run();
    steps.read();
    plain.push_back(milliseconds_since(start));
  }
  result.step_milliseconds = median(plain);
  const auto [copied, alone] = saves.alone();
  result.copy_milliseconds = largest(instance, copied);
  result.alone_rate = rate(result.bytes, largest(instance, alone));
  const std::vector<int64_t> saved = digests_of(instance);
  const auto [beside, whole] = saves.beside();
  result.stall_milliseconds = largest(instance, beside.front()) - result.step_milliseconds;
  result.beside_milliseconds = median(beside);
  result.beside_rate = rate(result.bytes, largest(instance, whole));
  add_reading(result, instance, saves.last(), bench.cold, saved);
  return result;
}

std::string print_table(const SaveBench& bench, const SaveBenchResult& r) {
  const double gb = 1e9;
  return fmt::format(
      "{}, {}: {} tokens, {} layers\n"
      "checkpoint            {:9.2f} GB, of which a rank copies {:.2f} GB; host memory for {:.2f} GB\n"
      "step                  {:9.1f} ms\n"
      "copy, no step         {:9.1f} ms, {:.1f} GB/s of a rank\n"
      "stall of a save       {:9.1f} ms more for the step after its beginning\n"
      "step beside writing   {:9.1f} ms\n"
      "writing, no step      {:9.2f} GB/s\n"
      "writing beside steps  {:9.2f} GB/s\n"
      "reading the weights   {:9.2f} GB/s{}\n"
      "reading the state     {:9.2f} GB/s\n"
      "what was read is {}\n",
      r.device, describe(bench.step.options), bench.step.tokens, bench.step.model.num_hidden_layers,
      static_cast<double>(r.bytes) / gb, static_cast<double>(r.copied_bytes) / gb,
      static_cast<double>(r.host_bytes) / gb, r.step_milliseconds, r.copy_milliseconds,
      rate(r.copied_bytes, r.copy_milliseconds), r.stall_milliseconds, r.beside_milliseconds, r.alone_rate,
      r.beside_rate, r.weights_rate, bench.cold ? ", as the rest once the system was to forget the files" : "",
      r.state_rate, r.same ? "what was saved" : "SOMETHING ELSE THAN WHAT WAS SAVED");
}

std::string print_json(const SaveBench& bench, const SaveBenchResult& r) {
  const RankGrid& grid = bench.step.options.ranks->grid;
  const nlohmann::ordered_json object = {{"device", r.device},
                                         {"layers", bench.step.model.num_hidden_layers},
                                         {"tokens", bench.step.tokens},
                                         {"ranks", grid.str()},
                                         {"bytes", r.bytes},
                                         {"copied_bytes", r.copied_bytes},
                                         {"host_bytes", r.host_bytes},
                                         {"step_milliseconds", r.step_milliseconds},
                                         {"copy_milliseconds", r.copy_milliseconds},
                                         {"stall_milliseconds", r.stall_milliseconds},
                                         {"step_beside_writing_milliseconds", r.beside_milliseconds},
                                         {"writing_gb_per_second", r.alone_rate},
                                         {"writing_beside_steps_gb_per_second", r.beside_rate},
                                         {"cold", bench.cold},
                                         {"reading_weights_gb_per_second", r.weights_rate},
                                         {"reading_state_gb_per_second", r.state_rate},
                                         {"same", r.same}};
  return object.dump(1) + "\n";
}

}  // namespace mixtune
