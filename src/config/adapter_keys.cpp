#include "config/key_builder.h"

namespace mixtune {

void add_adapter_keys(KeyTable& table) {
  using A = AdapterSettings;
  table.group("Adapters");
  table.add(
      "adapter", &Config::adapter, &A::adapter,
      "what is trained: `lora`, low-rank pairs beside weights that stay as they are (docs/adapters.md), `qlora`, the "
      "same beside weights in 4 bits, or the weights (`none`)");
  table.add("adapter_name_or_path", &Config::adapter, &A::adapter_name_or_path,
            "folder of the adapter to start from, PEFT's or mixtune's; null: A is random, and B 0", kNullable);
  table.add(
      "base_precision", &Config::adapter, &A::base_precision,
      "how the projections beside adapters are held: `nf4`, in 4 bits (docs/four-bit.md), as `adapter: qlora` has "
      "them; `fp8`, in 8 bits (docs/eight-bit.md); or as `precision` says");
  table.add("lora_r", &Config::adapter, &A::lora_r, "rank of every pair; on a GPU a multiple of 8",
            {.bounds = {1, 4096}});
  table.add("lora_alpha", &Config::adapter, &A::lora_alpha, "what the pairs add is `lora_alpha / lora_r` times B A",
            {.bounds = {0, 1e6, Bounds::kOpenLow}});
  table.add("use_rslora", &Config::adapter, &A::use_rslora, "divide by the square root of `lora_r` instead");
  table.add("lora_init", &Config::adapter, &A::lora_init,
            "what pairs begin as: A random and B 0 (`default`), or the part of each weight with its `lora_r` largest "
            "singular values, which is taken off it (`pissa`; docs/adapters.md)");
  table.add("lora_target_modules", &Config::adapter, &A::lora_target_modules,
            "which projections have pairs, a list: `q_proj`, `k_proj`, `v_proj`, `o_proj`, and of every expert `w1`, "
            "`w2`, `w3`, which go together; null: all of these; `gate`, `embed_tokens` and `lm_head` where they are "
            "named; `all-linear`: all but `embed_tokens` and `lm_head`",
            kNullable);
  table.add("modules_to_save", &Config::adapter, &A::modules_to_save,
            "what is trained whole beside the pairs and is saved with them, a list: `gate`, `lm_head`, `embed_tokens`, "
            "`input_layernorm`, `post_attention_layernorm`, `model.norm`, and `norm` for all norms; null: nothing",
            kNullable);
  table.add("lora_dropout", &Config::adapter, &A::lora_dropout,
            "share of the pairs' input that is dropped out in training (docs/adapters.md)",
            {.bounds = {0, 1, Bounds::kOpenHigh}});
  table.add("loraplus_lr_ratio", &Config::adapter, &A::loraplus_lr_ratio,
            "learning rate of every B but the embedding's, as a multiple of A's (LoRA+); 1: the same",
            {.bounds = {0, 1e6, Bounds::kOpenLow}});
}

}  // namespace mixtune
