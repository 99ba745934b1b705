#include "train/evaluate.h"

#include <chrono>
#include <cmath>

#include "checkpoint/load.h"
#include "data/data_files.h"
#include "train/device.h"
#include "train/run_data.h"
#include "train/step.h"

namespace mixtune {

Evaluator::Evaluator(Instance& instance, const Documents& documents, int64_t max_seq_length, bool packing, int64_t rows)
    : instance_(instance),
      loader_(documents, {.max_seq_length = max_seq_length, .packing = packing, .epochs = 1}, rows, 1,
              instance.host_memory(), instance.share()),
      saved_(instance.model().make_saved()),
      token_sum_(instance.ctx(), "evaluation loss", 1) {}

EvalRecord Evaluator::evaluate(int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  EvalRecord record{.step = step};
  Ctx& ctx = instance_.ctx();
  double sum = 0, weight = 0;
  for (int64_t i = 0; i < loader_.steps(); ++i) {
    const Step& rows = loader_.load(i);
    token_sum_.clear(ctx);
    for (const Batch& batch : rows.micro_batches)
      forward_loss(ctx, instance_.model(), batch, saved_, token_sum_.slice(0));
    instance_.ranks().world->all_reduce(ctx, "evaluation loss", token_sum_.slice(0));
    sum += *token_sum_.read(ctx);
    record.eval_tokens += rows.target_tokens;
    weight += rows.target_weight;
  }
  record.eval_loss = sum / weight;
  record.eval_perplexity = std::exp(record.eval_loss);
  record.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return record;
}

EvalRecord evaluate(const Config& config) {
  const MixtralConfig shape = load_mixtral_config(config.model.model_name_or_path);
  Instance instance(shape, instance_options(config, State::Purpose::kInference));
  const HfFolder folder(config.model.model_name_or_path);
  check_weights(folder, instance.state());
  const std::shared_ptr<const Documents> documents = load_model_documents(validation_datasets(config), config, shape);
  load_weights(instance.ctx(), folder, instance.state());
  return Evaluator(instance, *documents, config.data.max_seq_length, config.data.packing,
                   config.batch.per_device_train_batch_size)
      .evaluate(0);
}

}  // namespace mixtune
