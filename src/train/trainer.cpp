#include "train/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <fstream>

#include "base/log.h"
#include "checkpoint/load.h"
#include "checkpoint/save.h"
#include "config/load.h"
#include "metrics/console_sink.h"
#include "metrics/jsonl_sink.h"
#include "state/adamw.h"
#include "train/schedule.h"
#include "train/step.h"

namespace mixtune {

namespace {

using Clock = std::chrono::steady_clock;

OutputRequest output_request(const Config& config) {
  OutputRequest request{
      .path = config.run.output_dir, .overwrite = config.run.overwrite_output_dir, .inputs = config.data.train_file};
  request.inputs.push_back(config.model.model_name_or_path);
  if (!config.model.tokenizer_name_or_path.empty()) request.inputs.push_back(config.model.tokenizer_name_or_path);
  if (!config.data.validation_file.empty()) request.inputs.push_back(config.data.validation_file);
  return request;
}

// The model's folder, once output_dir is known to be usable.
ModelFolder open_model(const Config& config) {
  check_output_folder(output_request(config));
  return ModelFolder(config.model.model_name_or_path);
}

RunData checked_data(const Config& config, const ModelFolder& folder, const Mixtral& model, const State& state) {
  check_weights(folder.weights(), state);  // a matter of headers: before the data, which takes longer
  return load_run_data(config, model.config());
}

PlanOptions plan_options(const Config& config) {
  PlanOptions options{.max_seq_length = config.data.max_seq_length,
                      .packing = config.data.packing,
                      .shuffle = config.data.shuffle,
                      .seed = config.run.seed};
  if (config.run.max_steps <= 0) options.epochs = config.run.num_train_epochs;
  return options;
}

void write_resolved_config(Config config, double router_coefficient, const std::string& path) {
  config.model.router_aux_loss_coef = router_coefficient;
  std::ofstream file(path);
  file << print_config(config);
  if (!file.flush()) throw Error(path, "cannot be written", "check the disk's free space and the folder's permissions");
}

}  // namespace

Trainer::Trainer(const Config& config)
    : config_(config),
      folder_(open_model(config)),
      instance_(parse_mixtral_config(folder_.config_json(), config.model.model_name_or_path + "/config.json"), Device{},
                DType::kF32, State::Purpose::kTraining),
      saved_(instance_.model().make_saved()),
      data_(checked_data(config, folder_, instance_.model(), instance_.state())),
      router_coefficient_(config.model.router_aux_loss_coef.value_or(instance_.model().config().router_aux_loss_coef)),
      loader_(data_.train, plan_options(config), config.batch.per_device_train_batch_size,
              config.batch.gradient_accumulation_steps),
      total_steps_(config.run.max_steps > 0 ? config.run.max_steps : loader_.steps()) {
  if (data_.validation.size() > 0)
    evaluator_.emplace(instance_, data_.validation, config.data.max_seq_length, config.data.packing,
                       config.batch.per_device_train_batch_size);
  load_weights(folder_.weights(), instance_.state());
}

void Trainer::open_output() {
  output_.emplace(output_request(config_));
  write_resolved_config(config_, router_coefficient_, output_->file("config.resolved.yaml"));
  sinks_.push_back(std::make_unique<JsonlSink>(output_->file("metrics.jsonl")));
  sinks_.push_back(std::make_unique<ConsoleSink>(stdout, stdout_options(config_.run.logging_steps)));
  announce();
}

void Trainer::announce() const {
  log_info("{} parameters in fp32 on the CPU, {} steps", instance_.state().elements(), total_steps_);
  log_info("router loss: huggingface, coefficient {} ({})", router_coefficient_,
           config_.model.router_aux_loss_coef ? "from the configuration" : "the checkpoint's own");
}

StepRecord Trainer::step(int64_t step) {
  const auto start = Clock::now();
  const Step& rows = loader_.load(step - 1);
  MT_CHECK(rows.target_tokens > 0);  // no document is without a target
  State& state = instance_.state();
  Ctx& ctx = instance_.ctx();

  const double micro_batches = static_cast<double>(rows.micro_batches.size());
  const double targets = static_cast<double>(rows.target_tokens);
  state.begin_step();
  MicroBatchLoss total;
  for (const Batch& batch : rows.micro_batches) {
    const MicroBatchLoss loss = forward_backward(ctx, instance_.model(), batch, saved_,
                                                 {.router_loss_type = config_.model.router_aux_loss_type,
                                                  .token_scale = 1 / targets,
                                                  .router_scale = router_coefficient_ / micro_batches});
    total.token_sum += loss.token_sum;
    total.router += loss.router;
  }
  StepRecord record{.step = step,
                    .total_steps = total_steps_,
                    .epoch = rows.epoch,
                    .lm_loss = total.token_sum / targets,
                    .aux_loss = total.router / micro_batches,
                    .grad_norm = gradient_norm(ctx, state),
                    .learning_rate = learning_rate(config_.optimizer, step - 1, total_steps_),
                    .tokens = rows.live_tokens,
                    .target_tokens = rows.target_tokens};
  record.loss = record.lm_loss + router_coefficient_ * record.aux_loss;
  check_finite(record);
  adamw_step(ctx, state, config_.optimizer,
             {.step = step,
              .learning_rate = record.learning_rate,
              .grad_scale = clip_scale(record.grad_norm, config_.optimizer.max_grad_norm)});
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  record.milliseconds = seconds * 1e3;
  record.tokens_per_second = static_cast<double>(record.tokens) / seconds;
  return record;
}

void Trainer::check_finite(const StepRecord& record) {
  if (std::isfinite(record.loss) && std::isfinite(record.grad_norm)) return;
  report(record);
  finish();
  throw Error(fmt::format("step {}", record.step),
              fmt::format("training went bad: loss {}, gradient norm {}", record.loss, record.grad_norm),
              "lower learning_rate or raise warmup_steps, and look at the data; earlier checkpoints are intact",
              ExitCode::kWentBad);
}

bool Trainer::evaluation_due(int64_t step) const {
  if (!evaluator_) return false;
  return step == total_steps_ || (config_.run.eval_steps > 0 && step % config_.run.eval_steps == 0);
}

EvalRecord Trainer::evaluate(int64_t step) {
  return evaluator_->evaluate(step);
}

bool Trainer::save_due(int64_t step) const {
  return step == total_steps_ || (config_.run.save_steps > 0 && step % config_.run.save_steps == 0);
}

void Trainer::save(int64_t step) {
  SaveOptions options = folder_.save_options(output_->checkpoint_path(step));
  options.max_shard_size = parse_size(config_.run.max_shard_size);
  if (config_.run.save_dtype != SaveDType::kCheckpoint)
    options.dtype = config_.run.save_dtype == SaveDType::kFp32 ? DType::kF32 : DType::kBF16;
  save_checkpoint(instance_.state(), options);
  output_->write_latest(step);
  output_->prune(config_.run.save_total_limit);
  log_info("saved {}", options.out_folder);
}

void Trainer::report(const StepRecord& record) {
  for (const auto& sink : sinks_) sink->step(record);
}

void Trainer::report(const EvalRecord& record) {
  for (const auto& sink : sinks_) sink->evaluation(record);
}

void Trainer::finish() {
  for (const auto& sink : sinks_) sink->finish();
}

}  // namespace mixtune
