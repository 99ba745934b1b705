#include "cli/describe_model.h"

#include "checkpoint/save.h"
#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

constexpr const char* kConfig = R"({"model_type": "mixtral", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 6,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 3})";

TEST(Describe, Checkpoint) {
  const TempFolder folder;
  State state = small_state();
  fill(state);
  Stack stack("test", {}, 1 << 20);
  Ctx ctx{{}, stack, stack};
  save_checkpoint(ctx, state, {.out_folder = folder / "model", .config_json = kConfig, .dtype = DType::kBF16});
  put(folder / "model/tokenizer.json", "{}");
  const std::string text = describe_checkpoint(folder / "model");
  const int64_t active = state.layout().elements() - 2 * 3 * 8 * 6;
  for (const std::string& fragment : {std::string("2 layers, hidden 8"), std::string("3 a layer, 2 for a token"),
                                      fmt::format("{}, {} active for a token", state.layout().elements(), active),
                                      std::string("35 x BF16 (hub layout)"), std::string("in model.safetensors\n"),
                                      std::string("side files   tokenizer.json\n"), std::string("tokenizer.json only")})
    EXPECT_NE(text.find(fragment), std::string::npos) << fragment << " in\n" << text;
  EXPECT_NE(
      describe_safetensors(folder / "model/model.safetensors").find("BF16     [10, 8]              lm_head.weight\n"),
      std::string::npos);
  expect_user_error([&] { describe_checkpoint(folder.path()); }, {"config.json"});
}

}  // namespace
}  // namespace mixtune
