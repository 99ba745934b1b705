// Keeping: the one owner of what a layer's forward pass keeps on the stack, and of how long.
#pragma once

#include <utility>
#include <vector>

#include "model/activations.h"
#include "model/mixtral_config.h"
#include "model/params.h"
#include "precision/recipe.h"

namespace mixtune {

class Keeping {
 public:
  // `recipe` and `dispatcher` outlive this.
  Keeping(const MixtralConfig& config, const ModelParams& params, const Recipe& recipe, const Dispatcher& dispatcher,
          const Activations& activations)
      : config_(config), params_(params), recipe_(recipe), dispatcher_(dispatcher), activations_(activations) {}

  // Sets what Mixtral::set_still_needed says.
  void set_still_needed(std::vector<size_t> bytes) { still_needed_ = std::move(bytes); }

  // The pass forward through the layers, one after the other.
  class Forward {
   public:
    // `for_backward`: what the layers save stays on the ctx's stacks; otherwise only their output does. `routing`: what
    // each layer's begins as, its limit and first token. The first three references outlive this.
    Forward(const Keeping& keeping, Ctx& ctx, Saved& saved, bool for_backward, const Routing& routing)
        : keeping_(keeping), ctx_(ctx), saved_(saved), for_backward_(for_backward), routing_(routing) {}

    // Pushes what the layer's attention and router save, and tells its dispatch how many rows have room. Returns the
    // layer's output [T, H], pushed too.
    Tensor begin_layer(int64_t layer, const Tensor& input);
    // Pushes what the experts save, as far as that fits. Called once the dispatch is planned.
    void keep_experts();
    // Releases what backward does without, or computes again.
    void end_layer();

   private:
    const Keeping& keeping_;
    Ctx& ctx_;
    Saved& saved_;
    bool for_backward_;
    Routing routing_;
    int64_t layer_ = 0;
    size_t mark_ = 0, host_mark_ = 0, kept_by_full_ = 0;  // of either stack: before the routing; after it
    bool first_ = true;                                   // the pass is at its first layer, whose input is the caller's
    Tensor spare_;                                        // a former layer's output, which no later layer reads
  };

  // Called in backward. Pushes the tensors that attention saves and returns true where they must be computed again.
  bool push_again(Ctx& ctx, int64_t layer, LayerSaved& saved) const;
  // The gate-up output [R, 2F] that was kept; or a tensor pushed for it, to be computed.
  Tensor gate_up(Ctx& ctx, const LayerSaved& saved) const;

 private:
  // These push the tensors of LayerSaved, those that are kept the longest first.
  void push_routing(Ctx& ctx, LayerSaved& saved) const;
  void push_attention(Ctx& ctx, const LayerParams& params, LayerSaved& saved) const;
  // The u of an adapter for such rows; empty where there is none.
  Tensor push_inner(Ctx& ctx, const AdapterParams& adapter, int64_t rows) const;
  // How many rows there is memory for, beside what is still to come.
  int64_t room_for_rows(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const;
  // Pushes what `recompute` lets the experts keep, as far as that fits. Returns false where not all does.
  bool keep_experts(Ctx& ctx, int64_t layer, LayerSaved& saved) const;
  bool gate_up_fits(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const;
  Tensor push_gate_up(Ctx& ctx, const LayerSaved& saved) const;
  Shape gate_up_weight(const LayerSaved& saved) const;

  MixtralConfig config_;
  ModelParams params_;
  const Recipe& recipe_;
  const Dispatcher& dispatcher_;
  Activations activations_;
  std::vector<size_t> still_needed_;
};

}  // namespace mixtune
