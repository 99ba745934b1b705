// The commands that measure and plan: bench, estimate, doctor.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

// A folder with a small random model.
class Bench : public testing::Test {
 protected:
  void SetUp() override { make_model(path("model")); }

  std::filesystem::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const std::vector<std::string>& args) const {
    Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }

  // Expects exit code 2, and one line that says why.
  void expect_refused(const std::vector<std::string>& args, const std::string& fragment) const {
    const auto before = snapshot(work_.path());
    const Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, 2) << fragment;
    EXPECT_TRUE(outcome.err.starts_with("mixtune: error: ")) << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    EXPECT_NE(outcome.err.find(fragment), std::string::npos) << "no '" << fragment << "' in: " << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(snapshot(work_.path()), before);
  }

  nlohmann::json json(const std::string& name) const { return nlohmann::json::parse(read(path(name))); }

  TempFolder work_;
};

std::vector<std::string> with(std::vector<std::string> args, const std::vector<std::string>& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

// The line that begins so.
std::string line_of(const std::string& text, const std::string& beginning) {
  const size_t begin = text.find("\n" + beginning);
  EXPECT_NE(begin, text.npos) << "no " << beginning << " in " << text;
  return begin == text.npos ? "" : text.substr(begin + 1, text.find('\n', begin + 1) - begin - 1);
}

const std::vector<std::string> kStep = {"bench",           "step",         "--model-config=model/config.json",
                                        "--layers=1",      "--tokens=256", "--sequence-length=128",
                                        "--settle=0",      "--steps=2",    "--device=cpu",
                                        "--json=step.json"};

// With room for little, training waits; what is saved is the same.
TEST_F(Bench, SaveReadsWhatItSaved) {
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--nproc=2", "--checkpoint_host_memory=1KB", "--cold"}}) {
    const std::string name = more.empty() ? "one" : "two";
    std::vector<std::string> args = with(kStep, more);
    args[1] = "save";
    args.insert(args.begin() + 2, name);
    args.push_back("--json=" + name + ".json");
    std::erase(args, "--json=step.json");
    run(args);
    const auto figures = json(name + ".json");
    EXPECT_EQ(figures["same"], true);
    EXPECT_EQ(figures["cold"], !more.empty());
    EXPECT_EQ(figures["host_bytes"] == uint64_t{32} << 20, !more.empty()) << figures["host_bytes"];
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path(name + "/checkpoint-2")))
      if (entry.is_regular_file() && entry.path().extension() == ".safetensors") bytes += entry.file_size();
    EXPECT_NEAR(static_cast<double>(bytes), figures["bytes"].get<double>(), 64 << 10);  // headers
    EXPECT_EQ(read(path(name + "/latest")), "checkpoint-2\n");
    EXPECT_FALSE(std::filesystem::exists(path(name + "/checkpoint-1")));
    for (const char* part : {"attention", "experts", "positions"})
      EXPECT_EQ(line_of(run({"inspect", name}).out, part), line_of(run({"inspect", "model"}).out, part));
  }
}

TEST_F(Bench, StepPrintsItsFigures) {
  const std::string out = run(kStep).out;
  for (const char* text : {"CPU: step of 1 x 256 tokens", "tokens a second", "GEMM TFLOP/s", "attention, backward"})
    EXPECT_NE(out.find(text), std::string::npos) << text << " in " << out;
  const auto figures = json("step.json");
  EXPECT_EQ(figures["document_tokens"], 128);
  EXPECT_GT(figures["milliseconds"], 0);
  EXPECT_GT(figures["loss"], 0);
  EXPECT_EQ(figures["waits_per_step"], 0);
  EXPECT_TRUE(figures["planned_bytes"].is_null());  // a GPU's
}

TEST_F(Bench, StepInEachMode) {
  for (const char* mode : {"--mode=forward", "--mode=forward-backward"}) {
    run(with(kStep, {mode, "--balanced", "--documents-per-row=2", "--accumulate=2"}));
    EXPECT_EQ(json("step.json")["balanced"], true);
    std::filesystem::remove(path("step.json"));
  }
}

// Ranks too are refused, and end by way of a supervisor.
TEST_F(Bench, AModelThatDoesNotFitIsRefusedWithAdvice) {
  nlohmann::json config = json("model/config.json");
  config["intermediate_size"] = 1 << 24;
  std::ofstream(path("large.json")) << config;
  const std::vector<std::string> args = {
      "bench", "step", "--model-config=large.json", "--layers=100", "--tokens=2", "--steps=1", "--device=cpu"};
  const std::string advice = "; use a smaller batch, shorter rows or a smaller model\n";
  expect_refused(args, advice);
  expect_refused(with(args, {"--nproc=2"}), advice);
}

TEST_F(Bench, KernelsTimesEachOp) {
  const std::string out = run({"bench", "kernels", "--model-config=model/config.json", "--tokens=200",
                               "--document-tokens=100", "--settle=0", "--runs=2", "--device=cpu", "--json=ops.json"})
                              .out;
  EXPECT_NE(out.find("roofline: copy"), std::string::npos) << out;
  const auto ops = json("ops.json")["ops"];
  EXPECT_GT(ops.size(), 30u);
  for (const auto& op : ops) {
    EXPECT_GT(op["milliseconds"], 0) << op;
    EXPECT_GT(op.contains("flops") ? op["flops"] : op["bytes"], 0) << op;
    EXPECT_NE(out.find(op["op"].get<std::string>()), std::string::npos) << op;
  }
}

TEST_F(Bench, LoadSaysHowFastAndInHowMuchMemory) {
  const std::string out = run({"bench", "load", "model", "--device=cpu"}).out;
  for (const char* text : {"the CPU, fp32: ", " GB/s", "peak host memory"})
    EXPECT_NE(out.find(text), std::string::npos) << text << " in " << out;
}

TEST_F(Bench, WhatCannotBeMeasured) {
  expect_refused({"bench", "zzz"}, "use one of: step, ladder, kernels, save, load");
  expect_refused({"bench", "stp"}, "did you mean 'step'?");
  expect_refused({"bench", "step", "--layer=2"}, "did you mean '--layers'?");
  expect_refused({"bench", "step", "--mode=backward"}, "'mixtune bench step --help'");
  expect_refused({"bench", "step", "--steps=0"}, "--steps");
  expect_refused({"bench", "step", "--settle=-1"}, "--settle");
  expect_refused({"bench", "step", "--tokens=100", "--sequence-length=64"}, "--sequence-length");
  expect_refused({"bench", "step", "--model-config=none.json"}, "none.json");
  expect_refused({"bench", "step", "--device=cpu", "--precision=bf16"}, "needs a GPU");
  expect_refused(with(kStep, {"--json=model/config.json"}), "twice");
  expect_refused({"bench", "kernels", "--device=cpu", "--json=model/config.json"}, "exists");
  expect_refused({"bench", "kernels", "--tokens=0"}, "--tokens");
  expect_refused({"bench", "kernels", "--device=cpu", "--precision=fp8"}, "bench step");
  expect_refused({"bench", "load"}, "FOLDER");
  expect_refused({"bench", "load", "none"}, "there is no folder 'none'");
  expect_refused({"bench", "load", "model", "--precision=fp4"}, "--precision");
}

TEST_F(Bench, EstimatePrintsATable) {
  const std::string out = run({"estimate", "--model_name_or_path=model", "--gpu-memory=80GB"}).out;
  for (const char* text : {"balanced", "worst case", "weights", "activations", "in all", "a GPU of 74.5 GiB: fits"})
    EXPECT_NE(out.find(text), std::string::npos) << text << " in " << out;
  EXPECT_EQ(out.find("master weights"), std::string::npos) << out;
  const std::string bf16 = run({"estimate", "--model_name_or_path=model", "--precision=bf16"}).out;
  EXPECT_NE(bf16.find("master weights"), std::string::npos) << bf16;
}

// Each example of Mixtral fits into the GPUs that its first lines name.
TEST_F(Bench, EstimateFitsTheExamples) {
  const auto write_config = [&](const std::string& folder, const char* sizes) {
    std::filesystem::create_directories(path(folder));
    write(path(folder + "/config.json"), R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
        "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "hidden_act": "silu", )" +
                                             std::string(sizes) + "}");
  };
  write_config("models/mixtral-8x7b", R"("vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 32768)");
  write_config("models/mixtral-8x22b", R"("vocab_size": 32768, "hidden_size": 6144, "intermediate_size": 16384,
      "num_hidden_layers": 56, "num_attention_heads": 48, "max_position_embeddings": 65536)");
  const auto expect_fits = [&](const char* example, std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"estimate", source_path("examples/") + example});
    const std::string out = run(flags).out;
    EXPECT_NE(out.find(": fits\n"), std::string::npos) << example << "\n" << out;
  };
  expect_fits("mixtral-8x7b/lora.yaml", {"--gpu-memory=140GiB"});
  expect_fits("mixtral-8x7b/lora-80gb.yaml", {"--gpu-memory=78GB"});
  expect_fits("mixtral-8x7b/qlora-48gb.yaml", {"--gpu-memory=48GB"});
  expect_fits("mixtral-8x22b/qlora.yaml", {"--nproc=2", "--gpu-memory=80GB"});
  expect_fits("mixtral-8x22b/qlora.yaml", {"--nproc=2", "--gpu-memory=140GiB", "--recompute=none"});
  expect_fits("mixtral-8x22b/qlora.yaml",
              {"--nproc=2", "--gpu-memory=140GiB", "--recompute=none", "--expert_model_parallel_size=1"});
  // 46.4e9 projections in a byte each; without them in 8 bits the same does not fit.
  const std::string example = source_path("examples/mixtral-8x7b/lora-80gb.yaml");
  expect_part(run({"estimate", example}).out, "weights held as codes            43.3 GiB     43.3 GiB\n");
  const Outcome plain = run_mixtune({"estimate", example, "--base_precision=auto", "--gpu-memory=78GB"}, path("."));
  expect_part(plain.out, ": does not fit");
}

TEST_F(Bench, WhatCannotBePlanned) {
  expect_refused({"estimate"}, "model_name_or_path");
  expect_refused({"estimate", "--model_name_or_path=none"}, "there is no folder 'none'");
  expect_refused({"estimate", "--model_name_or_path=model", "--gpu-memory=lots"}, "--gpu-memory: 'lots'");
  expect_refused({"estimate", "--model_name_or_path=model", "--gpu-memory=8"}, "'8' has no unit; write 8GiB");
  expect_refused({"estimate", "--model_name_or_path=model", "--search"}, "--gpu-memory 79GiB");
}

TEST_F(Bench, DoctorLooksAtWhatIsThere) {
  EXPECT_TRUE(run({"doctor"}).out.starts_with("build  "));
  expect_refused({"doctor", "me"}, "'me'");
}

}  // namespace
}  // namespace mixtune
