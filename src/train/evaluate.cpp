#include "train/evaluate.h"

#include <chrono>
#include <cmath>
#include <utility>

#include "checkpoint/hf_folder.h"
#include "train/instance_options.h"
#include "train/micro_batch.h"
#include "train/run_adapters.h"
#include "train/run_inputs.h"
#include "train/run_rows.h"

namespace mixtune {

Evaluator::Evaluator(Instance& instance, std::string name, std::unique_ptr<RowSource> rows, int64_t rows_per_batch)
    : instance_(instance),
      name_(std::move(name)),
      loader_(std::move(rows), rows_per_batch, 1, instance.host_memory(), instance.share()),
      saved_(instance.model().make_saved()),
      token_sum_(instance.ctx(), "evaluation loss", 1) {}

EvalRecord Evaluator::evaluate(int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  EvalRecord record{.name = name_, .step = step};
  Ctx& ctx = instance_.ctx();
  double sum = 0, weight = 0;
  for (int64_t i = 0; i < loader_.steps(); ++i) {
    const Step& rows = loader_.load(i);
    token_sum_.clear(ctx);
    for (const Batch& batch : rows.micro_batches)
      forward_loss(ctx, instance_.model(), batch, saved_, token_sum_.slice(0));
    instance_.ranks().data->all_reduce(ctx, "evaluation loss", token_sum_.slice(0));
    sum += *token_sum_.read(ctx);
    record.eval_tokens += rows.target_tokens;
    weight += rows.target_weight;
  }
  record.eval_loss = sum / weight;
  record.eval_perplexity = std::exp(record.eval_loss);
  record.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return record;
}

EvalRecord evaluate(const Config& config, const MixtralConfig& shape, const Ranks& ranks) {
  ranks.set_activity("loading");
  const ModelPaths paths = {config.model.model_name_or_path, config.adapter.adapter_name_or_path};
  Instance instance(shape, with_adapter(instance_options(config, State::Purpose::kInference, ranks), paths, shape));
  const RunData data = checked_data(config, HfFolder(paths.base), instance, load_validation_data);
  load_model(instance, paths);
  ranks.set_activity("evaluation");
  return Evaluator(instance, "", validation_rows(config, data, ""), config.batch.per_device_train_batch_size)
      .evaluate(0);
}

}  // namespace mixtune
