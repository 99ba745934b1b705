#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "base/log.h"
#include "base/size.h"
#include "checkpoint/load.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/training_state.h"
#include "config/load.h"
#include "metrics/console_sink.h"
#include "metrics/jsonl_sink.h"
#include "metrics/tensorboard_sink.h"
#include "report/report.h"
#include "run/environment.h"
#include "run/resume.h"
#include "run/shared_folder.h"
#include "train/announce_router.h"
#include "train/run_adapters.h"
#include "train/run_inputs.h"
#include "train/run_rows.h"
#include "train/schedule.h"
#include "train/step_record.h"
#include "train/trace.h"
#include "train/warm_up.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

std::string resolved_config(Config config, const RouterLosses& losses, const RunData& data) {
  config = as_begun(config);
  config.router.router_aux_loss_coef = losses[RouterLossType::kHuggingface].value_or(0);
  if (data.chat_template) config.data.chat_template = data.chat_template->chat_template.name;
  return print_config(config);
}

std::string went_bad(const EvalRecord& record) {
  return fmt::format("the evaluation{} went bad: loss {}", record.name.empty() ? "" : " of " + record.name,
                     record.eval_loss);
}

double gpu_gib(Device device) {
  return device.type == DeviceType::kCuda ? static_cast<double>(gpu_info(device.index).memory) / 0x1p30 : 0;
}

StepGuard::Options guard_options(const OptimizerSettings& settings, bool say) {
  return {.skip_nonfinite_steps = settings.skip_nonfinite_steps,
          .stop_on_divergence = settings.stop_on_divergence,
          .say = say};
}

EarlyStopping::Options stopping_options(const OutputSettings& settings) {
  return {.metric = settings.metric_for_best_model,
          .patience = settings.early_stopping_patience,
          .threshold = settings.early_stopping_threshold};
}

}  // namespace

Trainer::Trainer(const Config& config, const Ranks& ranks)
    : config_(config),
      resumed_(checkpoint_of(config).empty() ? std::nullopt : std::optional(read_manifest(checkpoint_of(config)))),
      folder_(open_model(config, ranks)),
      options_(instance_options(config, State::Purpose::kTraining, ranks)),
      instance_(model_shape(config, folder_), options_),
      runner_(instance_, config.optimizer, config.machine.seed),
      throughput_(instance_),
      data_(checked_data(config, folder_.weights(), instance_, load_run_data)),
      router_losses_(router_losses(config, instance_.model().config().router_aux_loss_coef)),
      loader_(training_rows(config, data_, rows_per_step(config, instance_.share().ranks)),
              config.batch.per_device_train_batch_size, config.batch.gradient_accumulation_steps,
              instance_.host_memory(), instance_.share()),
      total_steps_(config.batch.max_steps > 0 ? config.batch.max_steps : loader_.steps()),
      guard_(guard_options(config.optimizer, leads()), resumed_ ? resumed_->skipped : SkippedSteps()),
      stopping_(stopping_options(config.output), resumed_ ? resumed_->improvement : Improvement()) {
  if (const std::string shorter = check_stages(config, total_steps_); leads() && !shorter.empty())
    log_warning("{}", shorter);
  adapt(folder_, instance_.model().config(), config, data_);
  for (const std::string& name : data_.evaluations())
    evaluators_.push_back(std::make_unique<Evaluator>(instance_, name, validation_rows(config, data_, name),
                                                      config.batch.per_device_train_batch_size));
  contract_ = contract_of(config);
  contract_["data"] = data_.training_digest();
  contract_.merge(contract_of_router(config, router_losses_, instance_.model().config()));
  contract_["rows_per_step"] = std::to_string(rows_per_step(config, instance_.share().ranks));
  contract_["total_steps"] = std::to_string(total_steps_);
  if (!data_.train)  // which windows are drawn depends on how the length of the run is said
    contract_["windows"] = config.batch.max_steps > 0 ? "of max_steps" : "of num_train_epochs";
  if (options_.lora.is_set()) contract_["base"] = sample_digest(folder_.weights(), instance_.model().config());
  load();
  int64_t tokens = loader_.max_batch_tokens();
  for (const auto& evaluator : evaluators_) tokens = std::max(tokens, evaluator->max_batch_tokens());
  plans_ = warm_up(instance_, {.tokens = tokens,
                               .longest_document = std::min(tokens, config.data.max_seq_length),
                               .documents = loader_.max_batch_documents(),
                               .micro_batches = loader_.max_micro_batches(),
                               .weighted = loader_.weighted()});
  check_memory_to_save();
  make_saver();
}

void Trainer::make_saver() {
  const std::string& memory = config_.output.checkpoint_host_memory;
  saver_.emplace(instance_.ctx(), instance_.state(), instance_.ranks(), save_options(""),
                 Saver::Options{.host_memory = memory == "auto" ? std::nullopt : std::optional(parse_size(memory)),
                                .only_model = config_.output.save_only_model,
                                .total_limit = config_.output.save_total_limit});
}

void Trainer::load() {
  if (resumed_) check_contract(resumed_->contract, contract_, config_);
  const StoredFiles written = resumed_ ? resumed_->files : StoredFiles();
  const bool has_base = options_.lora.is_set();  // apart from the checkpoint, which is an adapter
  const LoadReport loaded =
      load_weights(instance_.ctx(), folder_.weights(), instance_.state(), has_base ? StoredFiles() : written);
  if (leads()) log_info("loaded {}{}", loaded.str(), instance_.ranks().grid.world > 1 ? ", this rank's share" : "");
  if (has_base) begin_adapters(config_, instance_, written);
  if (!resumed_) return;
  load_training_state(instance_.ctx(), checkpoint_of(config_), instance_.state(), written);
  first_step_ = resumed_->step + 1;
}

void Trainer::open_output() {
  if (leads()) output_.emplace(output_request(config_));
  check_place();
  if (!leads()) return;
  output_->begin();
  sinks_.push_back(std::make_unique<JsonlSink>(output_->metrics_path(), resumed_.has_value()));
  if (config_.output.report_to == ReportTo::kTensorBoard)
    sinks_.push_back(std::make_unique<TensorBoardSink>(output_->new_event_path(), first_step_));
  output_->write_config(resolved_config(config_, router_losses_, data_));
  const RankGrid& grid = instance_.ranks().grid;
  output_->write_environment(print_environment({.device = describe(options_),
                                                .layout = grid.world > 1 ? grid.str() : "",
                                                .peak = throughput_.peak().name,
                                                .parameters = instance_.state().layout().all_elements(),
                                                .first_step = first_step_}));
  sinks_.push_back(std::make_unique<ConsoleSink>(
      stdout, stdout_options(config_.output.logging_steps, {gpu_gib(options_.device), throughput_.peak().name})));
  announce();
}

// Checks at the start what would cost all steps up to the first checkpoint.
void Trainer::check_place() {
  const double seconds = std::min(10.0, config_.parallel.collective_timeout / 4);  // others wait for this
  Ctx& ctx = instance_.ctx();
  Communicator& all = *instance_.ranks().all;
  const std::string unshared = find_unshared(ctx, all, config_.output.output_dir,
                                             std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3)));
  const std::string lacks = gather_texts(ctx, all, "space for checkpoints", leads() ? lack_of_space() : "")[0];
  if (unshared.empty() && lacks.empty()) return;
  output_.reset();
  barrier(ctx, all, "output_dir given up");  // before the first rank that fails ends all
  if (unshared.empty())
    throw UserError(config_.where("output_dir"), lacks, "free some, or name a folder on a larger disk");
  throw UserError(config_.where("output_dir"), unshared, "name a folder of a file system that all ranks share");
}

// Of one checkpoint; what begin() will remove counts as free.
std::string Trainer::lack_of_space() const {
  const uint64_t needed = saver_->checkpoint_bytes(), there = output_->bytes_to_fill();
  if (needed <= there) return "";
  return fmt::format("a checkpoint takes {}, and its disk has {} left", format_bytes(needed), format_bytes(there));
}

void Trainer::close() {
  if (!leads()) return;
  if (first_step_ > total_steps_)
    log_info("all {} steps are done: nothing is left to train", total_steps_);
  else
    log_info("the run ended early, after step {}: {}: nothing is left to train", first_step_ - 1, stopping_.str());
  const OutputRequest request = output_request(config_);
  const int64_t limit = config_.output.save_total_limit;
  if (!request.resumes) return;
  if (!OutputFolder::is_closed(request, limit)) OutputFolder(request).close(limit);
  if (!std::filesystem::exists(std::filesystem::path(request.path) / kReportFile)) report_run(request.path);
}

void Trainer::announce() {
  log_info("{} parameters on {}, {} steps{}", instance_.state().layout().all_elements(), describe(options_),
           total_steps_, resumed_ ? fmt::format(", from step {} on", first_step_) : "");
  if (const std::string trained = describe_trained(options_.freeze, options_.lora, instance_.model().config());
      !trained.empty())
    log_info("{}", trained);
  if (const std::string warning = untried(options_.recipe); !warning.empty()) log_warning("{}", warning);
  warn_of_frozen_groups(config_, instance_.model().config());
  if (const RankGrid& grid = instance_.ranks().grid; grid.world > 1)
    log_info(
        "{}, zero_stage {}, global batch of {} rows", grid.str(), options_.zero_stage,
        config_.batch.per_device_train_batch_size * config_.batch.gradient_accumulation_steps * grid.size(Axis::kDp));
  if (options_.device.type == DeviceType::kCuda)
    log_info("attention: {}",
             attention_backend(instance_.ctx(), instance_.model().attention_shape({}), options_.types.weights));
  announce_router(config_, router_losses_, instance_.model().config());
  log_info("{}", saver_->str());
}

StepRecord Trainer::step(int64_t step) {
  const Range range(instance_.ctx(), "step");
  instance_.ranks().set_step(step);
  const auto start = Clock::now();
  const Step& rows = loader_.load(step - 1);
  requests_ = {};
  if (rows.target_tokens == 0) return skipped_step(step, rows);
  const double share = share_of_peak(config_.optimizer, step - 1, total_steps_);
  StepRunner::Loss loss = StepRunner::loss_of(rows, router_losses_);
  loss.step = step;
  loss.looks_at_operands = OperandReport::is_due(step);
  runner_.forward_backward(rows.micro_batches, loss);
  runner_.update({.step = step,
                  .lr_share = share,
                  .max_norm = config_.optimizer.max_grad_norm,
                  .bias_rate = config_.router.moe_router_bias_update_rate,
                  .requests = own_requests()});
  const StepRunner::Result result = runner_.read();
  requests_ = result.requests;
  StepRecord record = step_record(rows, result);
  record.step = step;
  record.total_steps = total_steps_;
  record.learning_rate = learning_rate(config_.optimizer, step - 1, total_steps_);
  if (step == first_step_) record.plans = plans_;
  throughput_.set(record, rows, std::chrono::duration<double>(Clock::now() - start).count());
  check(record);
  return record;
}

StepRunner::Requests Trainer::own_requests() const {
  StepRunner::Requests requests = asked_ ? asked_() : StepRunner::Requests();
  requests.settled = saver_->is_settled();
  return requests;
}

// Windows may have no target in a whole step; documents always have one.
StepRecord Trainer::skipped_step(int64_t step, const Step& rows) {
  if (leads()) log_warning("step {}: none of its tokens is a target; weights stay as they are", step);
  return {.step = step,
          .total_steps = total_steps_,
          .epoch = rows.epoch,
          .learning_rate = learning_rate(config_.optimizer, step - 1, total_steps_),
          .tokens = rows.live_tokens,
          .skipped_steps = guard_.skipped().count,
          .plans = step == first_step_ ? plans_ : std::string()};
}

StepRecord Trainer::profiled_step(int64_t step) {
  if (!leads()) return this->step(step);
  Trace trace(instance_.ctx());
  const StepRecord record = this->step(step);
  try {
    trace.write(output_->trace_path(), resumed_ ? Existing::kReplaced : Existing::kRefused);
    log_info("{} shows step {}: open it at ui.perfetto.dev", output_->trace_path(), step);
  } catch (const Error& error) {
    log_warning("{}; the run goes on without a trace", error.what());
  }
  return record;
}

void Trainer::check(StepRecord& record) {
  try {
    guard_.check(record);
  } catch (const Error&) {
    report(record);
    finish_records();
    finish_saving_quietly();
    throw;
  }
}

// Before an error that says what ended the run: a checkpoint that was begun before it is as good as it was.
void Trainer::finish_saving_quietly() {
  try {
    saver_->finish();
  } catch (const Error& error) {
    if (leads()) log_warning("{}", error.what());
  }
}

bool Trainer::evaluation_due(int64_t step) const {
  if (evaluators_.empty()) return false;
  if (step == 0) return config_.output.eval_on_start && first_step_ == 1;
  return step == total_steps_ || (config_.output.eval_steps > 0 && step % config_.output.eval_steps == 0);
}

void Trainer::evaluate(int64_t step) {
  instance_.ranks().set_activity("evaluation");
  std::vector<EvalRecord> records;
  for (const auto& evaluator : evaluators_) {
    const EvalRecord& record = records.emplace_back(evaluator->evaluate(step));
    for (const auto& sink : sinks_) sink->evaluation(record);
    if (leads() && !std::isfinite(record.eval_loss))
      log_warning("step {}: {}; training goes on", step, went_bad(record));
  }
  if (step == 0) return;
  stopping_.add(metrics_of(records));
  last_evaluations_ = std::move(records);
}

void Trainer::say_ended_early(int64_t step) const {
  if (leads()) log_info("ended early, after step {}: {} (early_stopping_patience)", step, stopping_.str());
}

bool Trainer::save_due(int64_t step) {
  const bool due =
      save_waits_ || requests_.save || (config_.output.save_steps > 0 && step % config_.output.save_steps == 0);
  save_waits_ = due && guard_.holds_saves();
  return step == total_steps_ || ended_early() || (due && !save_waits_);
}

SaveOptions Trainer::save_options(const std::string& path) const {
  SaveOptions options = folder_.save_options(path);
  if (options_.lora.is_set()) return to_save_adapters(std::move(options), config_, options_.lora);
  options.max_shard_size = parse_size(config_.output.max_shard_size);
  if (config_.output.save_dtype != SaveDType::kCheckpoint)
    options.dtype = config_.output.save_dtype == SaveDType::kFp32 ? DType::kF32 : DType::kBF16;
  return options;
}

// Checks at the start what the first checkpoint would find.
void Trainer::check_memory_to_save() const {
  const size_t needed = instance_.state().stack_bytes_to_save(), there = instance_.stack_bytes();
  if (needed <= there || !saves_masters(instance_.state(), save_options(""))) return;
  throw UserError(config_.where("save_dtype"),
                  fmt::format("to save fp32 masters that ranks hold in pieces, this rank needs {}, and {} are left",
                              format_bytes(needed), format_bytes(there)),
                  "set save_dtype: bf16, zero_stage: 0, or master_weights: none");
}

void Trainer::save(int64_t step) {
  instance_.ranks().set_activity("saving");
  instance_.state().weight_sync().await_all(instance_.ctx());
  check_replicas(step);
  if (const ExpertBias& bias = instance_.expert_bias(); bias)
    folder_.set_expert_bias(bias.values(), instance_.model().config().num_local_experts);
  const bool evaluated = !last_evaluations_.empty() && last_evaluations_[0].step == step;
  saver_->begin({.step = step,
                 .contract = contract_,
                 .evaluation = evaluated ? metrics_of(last_evaluations_) : Evaluation(),
                 .improvement = stopping_.improvement(),
                 .skipped = guard_.skipped()},
                save_options(leads() ? output_->checkpoint_path(step) : ""), leads() ? &*output_ : nullptr);
}

void Trainer::check_replicas(int64_t step) {
  const Ranks& ranks = instance_.ranks();
  const std::string own = instance_.state().replica_differences(instance_.ctx(), ranks.grid.rank);
  const std::vector<std::string> all = gather_texts(instance_.ctx(), *ranks.all, "differences of replicas", own);
  const auto found = std::ranges::find_if(all, [](const std::string& text) { return !text.empty(); });
  if (found == all.end()) return;
  finish_saving_quietly();
  throw Error(fmt::format("step {}", step), fmt::format("{}; nothing is saved", *found),
              "look for memory errors of these ranks' machines; earlier checkpoints are intact");
}

void Trainer::report(const StepRecord& record) {
  for (const auto& sink : sinks_) sink->step(record);
}

void Trainer::finish_records() {
  for (const auto& sink : sinks_) sink->finish();
  if (output_) report_run(output_->path());
}

// What a run has trained is worth more than its report.
void Trainer::report_run(const std::string& folder) try {
  log_info("{} shows the run", printable_path(write_report(folder)));
} catch (const Error& error) {
  log_warning("{}; the run has no report", error.what());
}

void Trainer::finish() {
  instance_.ranks().set_activity("saving");
  saver_->finish();
  finish_records();
  if (const int64_t count = guard_.skipped().count; leads() && count > 0)
    log_warning("steps of the run that were skipped, as their loss or gradient norm was not finite: {}", count);
  if (const std::string best = output_ ? output_->best_str() : ""; !best.empty())
    log_info("{}: the best checkpoint is {}", output_->path(), best);
  for (const EvalRecord& record : last_evaluations_)
    if (!std::isfinite(record.eval_loss))
      throw Error(fmt::format("step {}", record.step), went_bad(record),
                  "lower learning_rate, and look at the validation data; the checkpoints hold what was trained",
                  ExitCode::kWentBad);
}

}  // namespace mixtune
