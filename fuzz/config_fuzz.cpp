// Any text as a config.json, as a YAML config and as Megatron-LM's arguments: refused with a UserError, or a config in
// its bounds.
#include <cstdlib>

#include "base/error.h"
#include "config/load.h"
#include "config/megatron_run.h"
#include "model/mixtral_config.h"

using namespace mixtune;

namespace {

void check_model(std::string_view text) {
  const MixtralConfig c = parse_mixtral_config(text, "fuzz");
  if (c.num_attention_heads % c.num_key_value_heads != 0 || c.head_dim % 2 != 0) abort();
  if (c.num_experts_per_tok < 1 || c.num_experts_per_tok > c.num_local_experts) abort();
  if (!(c.rope_theta > 0) || !(c.rms_norm_eps > 0)) abort();
}

// What is accepted reads back as the same.
void check_run(std::string_view text) {
  const std::string printed = print_config(parse_config(text, "fuzz"));
  if (print_config(parse_config(printed, "printed")) != printed) abort();
}

// What each becomes is a setting that a config takes by itself, or with the others does not.
void check_arguments(std::string_view text) {
  const MegatronRun run = translate(parse_megatron_arguments(text, "fuzz"));
  if (run.lines.empty()) abort();
  parse_config("seed: 1\n", "fuzz", {}, run.settings);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto check : {check_model, check_run, check_arguments}) {
    try {
      check(text);
    } catch (const UserError&) {
    }
  }
  return 0;
}
