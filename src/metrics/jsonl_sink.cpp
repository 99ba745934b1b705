#include "metrics/jsonl_sink.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace mixtune {

namespace {

[[noreturn]] void throw_unwritable(const std::string& path, int error) {
  throw Error(printable(path, 200), std::string("cannot be written (") + std::strerror(error) + ")",
              "check the disk's space and the folder's permissions");
}

void add(const ParallelRecord& r, nlohmann::ordered_json& object) {
  const auto of_ranks = [&r](auto field) {
    nlohmann::ordered_json values;
    for (const RankRecord& rank : r.ranks) values.push_back(rank.*field);
    return values;
  };
  object["rank_tokens"] = of_ranks(&RankRecord::tokens);
  object["rank_exchange_bytes"] = of_ranks(&RankRecord::exchange_bytes);
  object["rank_exchange_milliseconds"] = of_ranks(&RankRecord::exchange_milliseconds);
  object["rank_exchange_exposed_milliseconds"] = of_ranks(&RankRecord::exchange_exposed_milliseconds);
  object["rank_gradient_sum_milliseconds"] = of_ranks(&RankRecord::gradient_sum_milliseconds);
  object["rank_weight_gather_milliseconds"] = of_ranks(&RankRecord::weight_gather_milliseconds);
  object["rank_collective_milliseconds"] = of_ranks(&RankRecord::collective_milliseconds);
  object["expert_tokens"] = r.expert_tokens;
  object["expert_imbalance"] = r.expert_imbalance;
}

}  // namespace

JsonlSink::JsonlSink(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "we")) {
  if (!file_) throw_unwritable(path_, errno);
}

void JsonlSink::step(const StepRecord& r) {
  nlohmann::ordered_json object = {{"step", r.step},
                                   {"total_steps", r.total_steps},
                                   {"epoch", r.epoch},
                                   {"loss", r.loss},
                                   {"lm_loss", r.lm_loss},
                                   {"aux_loss", r.aux_loss},
                                   {"grad_norm", r.grad_norm},
                                   {"learning_rate", r.learning_rate},
                                   {"tokens", r.tokens},
                                   {"target_tokens", r.target_tokens},
                                   {"recomputed_layers", r.recomputed_layers},
                                   {"tokens_per_second", r.tokens_per_second},
                                   {"milliseconds", r.milliseconds}};
  if (!r.plans.empty()) object["plans"] = r.plans;
  if (r.parallel) add(*r.parallel, object);
  write(object.dump());
}

void JsonlSink::evaluation(const EvalRecord& r) {
  const nlohmann::ordered_json object = {{"step", r.step},
                                         {"eval_loss", r.eval_loss},
                                         {"eval_perplexity", r.eval_perplexity},
                                         {"eval_tokens", r.eval_tokens},
                                         {"milliseconds", r.milliseconds}};
  write(object.dump());
}

void JsonlSink::finish() {
  if (fsync(fileno(file_.get())) != 0 && errno != EINVAL) throw_unwritable(path_, errno);
}

void JsonlSink::write(const std::string& line) {
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size() &&
                       std::fputc('\n', file_.get()) != EOF && std::fflush(file_.get()) == 0;
  if (!written) throw_unwritable(path_, errno);
}

}  // namespace mixtune
