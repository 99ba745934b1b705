// GemmPlans: cuBLASLt on one GPU, and which of its algorithms computes which product.
//
// Algorithms are chosen by measurement in warm-up and kept in a file for later runs (GpuOptions.plan_cache). After that
// each number of tokens uses the choice of its bucket (gemm_choices.h), and nothing is built.
#pragma once

#include <string>
#include <vector>

#include "kernels/cublaslt.h"
#include "tensor/ctx.h"
#include "tensor/gpu.h"

namespace mixtune {

class GemmTuner;

class GemmPlans : public GpuPart {
 public:
  static constexpr GpuSlot kSlot = GpuSlot::kGemm;

  explicit GemmPlans(Gpu& gpu);

  // The most tokens a product will have, and the most rows a group of a grouped one: the first product of a shape makes
  // the choices for all numbers up to this one. Without it, for its own bucket.
  void set_max_tokens(int64_t tokens, int64_t group_rows);
  int64_t max_tokens() const { return max_tokens_; }
  int64_t max_group_rows() const { return max_group_rows_; }

  // Enqueues the products product_of(0) ... product_of(count - 1), which do not depend on each other: one on the GPU's
  // stream, several side by side. Empty sums give zero. `most`: of the two above, the one that bounds them.
  template <class ProductOf>
  void run(Ctx& ctx, int64_t count, int64_t most, const ProductOf& product_of) {
    products_.clear();
    for (int64_t i = 0; i < count; ++i) add(product_of(i));
    run_added(ctx, most);
  }

  // Keeps what was measured for later runs; to be called when warm-up ends.
  void save();

  struct Chosen {
    std::string product;  // GemmKey::str()
    double microseconds;  // when it was measured; 0: taken without
  };
  std::vector<Chosen> chosen() const;
  int64_t measured() const { return measured_; }  // choices, by this process

 private:
  void add(const GemmProduct& product);
  void run_added(Ctx& ctx, int64_t most);
  int useful_streams() const;
  void multiply(const GemmProduct& product, int side);

  // After these, choices_ has the bucket of a shape, unless cuBLASLt has no algorithm for it.
  void prepare(Ctx& ctx, const GemmKey& shape, int64_t most);
  void choose(GemmTuner& tuner, const GemmKey& bucket);
  GemmChoice take_first(const GemmKey& shape);

  Gpu& gpu_;
  CublasLt lt_;
  std::string machine_, path_;
  int64_t max_tokens_ = 0, max_group_rows_ = 0, measured_ = 0;
  GemmChoices choices_;                // in use
  GemmChoices exact_;                  // of shapes that the algorithm of their bucket does not take
  GemmChoices stored_;                 // in the file
  std::vector<GemmProduct> products_;  // of the op at work
};

}  // namespace mixtune
