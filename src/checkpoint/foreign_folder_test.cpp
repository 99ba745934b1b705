#include "checkpoint/foreign_folder.h"

#include "checkpoint/hf_folder.h"
#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

std::string what(const TempFolder& folder) {
  const auto foreign = foreign_folder(folder.path());
  return foreign ? foreign->what : "";
}

TEST(ForeignFolder, AnAdapterNamesItsBase) {
  const TempFolder folder;
  put(folder / "adapter_config.json",
      R"({"peft_type": "LORA", "base_model_name_or_path": "mistralai/Mixtral-8x7B-v0.1", "target_modules": ["q_proj"]})");
  put(folder / "adapter_model.safetensors", "");
  EXPECT_EQ(what(folder), "holds a PEFT adapter, not a model (its base: mistralai/Mixtral-8x7B-v0.1)");
  EXPECT_NE(foreign_folder(folder.path())->mend.find("merge"), std::string::npos);
  expect_user_error([&] { HfFolder{folder.path()}; }, {folder.path(), "PEFT adapter", "Mixtral-8x7B-v0.1", "merge"});
}

TEST(ForeignFolder, AHostileAdapter) {
  const TempFolder folder;
  const std::string path = folder / "adapter_config.json";
  put(path, R"({"base_model_name_or_path": "\u001b[2J\n)" + std::string(5000, 'x') + "\"}");
  EXPECT_LT(what(folder).size(), 300u);
  EXPECT_NE(what(folder).find("\\x1b[2J\\x0a"), std::string::npos) << what(folder);
  for (const char* unnamed : {"{}", R"({"base_model_name_or_path": null})", R"({"base_model_name_or_path": [1]})"}) {
    put(path, unnamed);
    EXPECT_EQ(what(folder), "holds a PEFT adapter, not a model");
  }
  put(path, std::string(2 << 20, ' '));
  expect_user_error([&] { what(folder); }, {path, "is larger than 1 MiB"});
  put(path, std::string(1 << 20, '['));
  expect_user_error([&] { what(folder); }, {path});
  const TempFolder elsewhere;
  put(elsewhere / "secret", R"({"base_model_name_or_path": "secret"})");
  std::filesystem::remove(path);
  std::filesystem::create_symlink(elsewhere / "secret", path);
  expect_user_error([&] { what(folder); }, {path, "leads out"});
}

TEST(ForeignFolder, OtherKinds) {
  const auto kind_of = [](const std::string& name) {
    const TempFolder folder;
    put(folder / name, "");
    put(folder / "README.md", "");
    return what(folder);
  };
  EXPECT_EQ(kind_of("mixtral-q4_k_m.gguf"), "holds a GGUF file, llama.cpp's format");
  EXPECT_EQ(kind_of("consolidated.00.pt"), "holds weights in Mistral's own format");
  EXPECT_EQ(kind_of("consolidated.safetensors"), "holds weights in Mistral's own format");
  EXPECT_EQ(kind_of("params.json"), "is a folder in Mistral's own format");
  EXPECT_EQ(kind_of("pytorch_model-00001-of-00019.bin"), "has no safetensors, only PyTorch's .bin files");
  EXPECT_EQ(kind_of("pytorch_model.bin.index.json"), "has no safetensors, only PyTorch's .bin files");
  EXPECT_EQ(kind_of("modules.json"), "is a sentence-transformers folder");
  EXPECT_EQ(kind_of("model_index.json"), "is a diffusers pipeline");
  EXPECT_EQ(kind_of("latest_checkpointed_iteration.txt"), "is a Megatron-LM checkpoint");
  EXPECT_EQ(kind_of("zero_to_fp32.py"), "is a DeepSpeed checkpoint");
  EXPECT_EQ(kind_of("snapshots"), "is the hub cache's folder of a model");
  EXPECT_EQ(kind_of("tokenizer.model"), "");
  EXPECT_FALSE(foreign_folder("/nowhere"));
}

}  // namespace
}  // namespace mixtune
