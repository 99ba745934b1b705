// StepRunner: puts an optimizer step on the device without waiting for any of it.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <tuple>

#include "state/adamw.h"
#include "tensor/graph.h"
#include "train/micro_batch.h"
#include "train/operand_report.h"
#include "train/parallel_report.h"
#include "train/router_report.h"
#include "train/scalars.h"

namespace mixtune {

class StepRunner {
 public:
  // `instance` outlives this.
  StepRunner(Instance& instance, const OptimizerSettings& settings, uint64_t seed);

  // Runs forward and backward of every micro-batch: gradients of the weighted mean token loss + the router's mean
  // losses (docs/router.md says of what), each times its coefficient. The batches stay as they are until read(). All
  // ranks call this, with as many micro-batches.
  struct Loss {
    double target_weight;   // of all targets of the whole global batch: their number, where none is weighted
    int64_t tokens = 0;     // of the whole global batch; used by kZ and drop_rates alone
    int64_t documents = 0;  // the same, by kSequence alone
    RouterLosses router = {};
    int64_t step = 0;                // by which RouterNoise is drawn
    bool looks_at_operands = false;  // in 8 bits
  };
  static Loss loss_of(const Step& rows, const RouterLosses& router) {
    return {rows.target_weight, rows.live_tokens, rows.documents, router};
  }
  void forward_backward(std::span<const Batch> micro_batches, const Loss& loss);

  // Computes the losses alone.
  void forward(std::span<const Batch> micro_batches);

  // What ranks tell all: after the step, each has what any asked, and whether all are settled (run/saver.h).
  struct Requests {
    bool stop = false, save = false, settled = false;
  };
  // Puts norm, clipping (max_norm 0: none) and AdamW on the device. Where a loss or the norm is not finite, nothing
  // changes. with_norm false leaves the norm out, and so the check of gradients: for a benchmark of the update alone.
  struct Update {
    int64_t step;
    double lr_share, max_norm;  // of the peak learning rates
    bool with_norm = true;
    double bias_rate = 0;  // by which read() moves the experts' bias, where there is one and the weights changed
    Requests requests = {};
  };
  void update(const Update& args);

  // What the step's micro-batches made; after update() all ranks', which all call this. Waits for the device.
  struct Result {
    double token_loss = 0;                       // the sum, weighted
    std::tuple<double, double> drop_rates;       // StepRecord's drop_rate and dropped_tokens_rate
    RouterLosses router = {};                    // each mean loss, unscaled; of those that were computed
    double router_loss = 0;                      // the sum of these, each times its coefficient
    double grad_norm = 0, router_grad_norm = 0;  // after update(), with its norm
    double memory_gib = 0;                       // StepRecord::memory_gib
    int64_t recomputed = 0;                      // layers that kept less than they were to (Saved::recomputed)
    const ParallelRecord* parallel = nullptr;    // with several ranks, after backward; valid until the next read
    Requests requests = {};                      // after update() alone
    const RouterRecord* routers = nullptr;       // after forward_backward; valid until the next read
    const std::vector<OperandLoss>* operands = nullptr;  // where they were looked at; valid until the next read
  };
  Result read();

  Saved& saved() { return saved_; }
  // How often graphs of micro-batches were made anew (graph.h).
  int64_t graphs_made() const { return graphs_[0].instantiations() + graphs_[1].instantiations(); }

 private:
  // As a graph, where options ask for it and nothing looks inside. The first micro-batch writes sums and the others
  // add.
  void run_micro_batch(bool first, const std::function<void()>& work);
  // After the result has the ranges that the step had.
  void move_expert_bias(bool changed_weights, const RouterRecord& routers);

  Instance& instance_;
  AdamW optimizer_;
  Saved saved_;
  RouterReport routers_;
  int64_t tally_size_;
  uint64_t noise_;  // the key of all steps
  Scalars scalars_;
  Tensor router_squares_, squares_, losses_, scale_;  // [1], [1], [kLosses], [1]
  Scalars router_counts_;                             // [L, E], of kGlobal
  std::array<Graph, 2> graphs_;                       // of a step's first micro-batch, and of the others
  Loss loss_ = {};                                    // of the last forward_backward
  int64_t micro_batches_ = 0;
  int64_t recomputed_ = 0;
  std::optional<double> bias_rate_;        // of an update that was not read yet
  std::optional<ParallelReport> report_;   // with several ranks
  bool reported_ = false;                  // it has the last step
  bool tallied_ = false;                   // the routers of the last step
  std::optional<OperandReport> operands_;  // in 8 bits
};

}  // namespace mixtune
