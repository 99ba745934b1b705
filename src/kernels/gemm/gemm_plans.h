// GemmPlans: cuBLASLt on one GPU, and its algorithm for each product.
//
// Algorithms are chosen in warm-up: by measurement, kept in a file for later runs (GpuOptions.plan_cache); or by rule,
// the library's first. After that each number of tokens uses the choice of its bucket (gemm_choices.h), and nothing is
// built. For a product that is met later, or has no room to be measured, the choice is by rule: so with the same
// measured choices all ranks and runs take the same algorithm for a product.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/gemm/cublaslt.h"
#include "tensor/ctx.h"
#include "tensor/gpu.h"

namespace mixtune {

class GemmTuner;

class GemmPlans : public GpuPart {
 public:
  static constexpr GpuSlot kSlot = GpuSlot::kGemm;

  explicit GemmPlans(Gpu& gpu);

  // Sets the most tokens a product will have, and the most rows a group of a grouped one. The first product of a shape
  // then makes the choices for all numbers up to that; otherwise for its own bucket alone.
  void set_max_tokens(int64_t tokens, int64_t group_rows);
  int64_t max_tokens() const { return max_tokens_; }
  int64_t max_group_rows() const { return max_group_rows_; }

  // Enqueues the products product_of(0) ... product_of(count - 1), which do not depend on each other: one on the GPU's
  // stream, several side by side. Empty sums give zero. `most` is the one of the two limits above that bounds them. In
  // warm-up products without tokens have choices made too: later steps will send some to the experts that had none.
  template <class ProductOf>
  void run(Ctx& ctx, int64_t count, int64_t most, const ProductOf& product_of) {
    products_.clear();
    for (int64_t i = 0; i < count; ++i) add(ctx, product_of(i), most);
    run_added();
  }

  // The GPU and the library that choices are good for: "NVIDIA H200, cuBLASLt 13.1.0".
  const std::string& machine() const { return machine_; }

  // Has choices made by rule from now on; with GpuOptions.deterministic they always are.
  void choose_by_rule() { by_rule_ = true; }

  // The measured choices as text (format_choices). take_choices replaces them by those of another GPU of the same
  // `machine`.
  std::string measured_choices() const { return format_choices(machine_, measured_among(choices_)); }
  void take_choices(std::string_view text);
  std::string digest() const { return digest_of(machine_, measured_among(choices_)); }

  // Keeps what this process measured for later runs. Called when warm-up ends.
  void save() const;

  const GemmChoices& choices() const { return choices_; }
  int64_t measured() const { return static_cast<int64_t>(measured_.size()); }  // choices, this process's

 private:
  void add(Ctx& ctx, const GemmProduct& product, int64_t most);
  void run_added();
  int useful_streams() const;
  void multiply(const GemmProduct& product, int side);

  // Makes sure that choices_ has the bucket of a shape, unless cuBLASLt has no algorithm for it.
  void prepare(Ctx& ctx, const GemmKey& shape, int64_t most);
  void choose(GemmTuner& tuner, const GemmKey& bucket);
  GemmChoice take_first(const GemmKey& shape) const;
  const GemmChoice* stored(const GemmKey& bucket);

  Gpu& gpu_;
  CublasLt lt_;
  std::string machine_, path_;
  int64_t max_tokens_ = 0, max_group_rows_ = 0;
  bool by_rule_;
  GemmChoices choices_;                // in use
  GemmChoices exact_;                  // for shapes that the algorithm of their bucket does not take
  GemmChoices measured_;               // by this process
  std::optional<GemmChoices> stored_;  // in the file, once it was read
  std::vector<GemmProduct> products_;  // of the op at work
};

}  // namespace mixtune
