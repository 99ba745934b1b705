// Adapters beside a base held as codes (adapter: qlora, base_precision) through the program.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "adapter_runs.h"
#include "base/dtype.h"
#include "base/fp8.h"

namespace mixtune {
namespace {

const Args kQlora = {"--adapter=qlora"}, kFp8 = {"--adapter=lora", "--base_precision=fp8"};

// The model's projections are of several squares of 128 x 128, those at the ends smaller.
class CodedBases : public AdapterRuns {
 protected:
  void SetUp() override {
    AdapterRuns::SetUp();
    nlohmann::json shape = config_of("model");
    shape["hidden_size"] = 144, shape["intermediate_size"] = 272, shape["head_dim"] = 64;
    write(path("shape.json"), shape.dump());
    fs::remove_all(path("model"));
    done({"init", "shape.json", "model", "--tokenizer", source_path("examples/quickstart")});
  }

  // On a GPU such a base is computed with in bf16.
  static Args coded(const std::string& out, const Args& base, const Args& more) {
    return four_steps(out, with(with(base, {"--lora_r=8"}), with(device(), more)));
  }
  static Args device() { return on_gpus() ? Args{"--precision=bf16"} : Args{}; }

  // Calls change(rows, columns, values) with each projection of the model, and writes what it leaves.
  template <class Change>
  void change_projections(const Change& change) const {
    const fs::path file = path("model/model.safetensors");
    std::string bytes = read(file);
    const std::string text = header("model/model.safetensors");
    int changed = 0;
    const nlohmann::json tensors = nlohmann::json::parse(text);
    for (const auto& [name, tensor] : tensors.items()) {
      if (!name.ends_with("_proj.weight") && name.find(".experts.") == name.npos) continue;
      ASSERT_EQ(tensor["dtype"], "F32");
      const int64_t rows = tensor["shape"][0], columns = tensor["shape"][1];
      const size_t begin = tensor["data_offsets"][0];
      char* const at = bytes.data() + sizeof(uint64_t) + text.size() + begin;
      std::vector<float> values(static_cast<size_t>(rows * columns));
      std::memcpy(values.data(), at, values.size() * sizeof(float));
      change(rows, columns, values);
      std::memcpy(at, values.data(), values.size() * sizeof(float));
      ++changed;
    }
    EXPECT_EQ(changed, 4 + 2 * 3);
    write(file, bytes);
  }

  // Of bf16, and of so different sizes that it matters which share a scale.
  void spread_weights() const {
    change_projections([](int64_t, int64_t columns, std::vector<float>& values) {
      for (size_t i = 0; i < values.size(); ++i) {
        const auto place = static_cast<int64_t>(i);
        const int smaller = static_cast<int>(place % 16 + place % columns / 100 + place / columns / 100);
        values[i] = to_float(to_bf16(std::ldexp(values[i], -smaller)));
      }
    });
  }

  // To E4M3 with a scale of a power of two for each square: docs/eight-bit.md, once more.
  void round_weights() const {
    change_projections([](int64_t rows, int64_t columns, std::vector<float>& values) {
      constexpr int64_t kSide = 128;
      for (int64_t top = 0; top < rows; top += kSide)
        for (int64_t left = 0; left < columns; left += kSide) {
          const auto each = [&](const auto& use) {
            for (int64_t r = top; r < std::min(top + kSide, rows); ++r)
              for (int64_t c = left; c < std::min(left + kSide, columns); ++c)
                use(values[static_cast<size_t>(r * columns + c)]);
          };
          float largest = 0;
          each([&](float x) { largest = std::max(largest, std::abs(x)); });
          const float scale = std::ldexp(1.0F, scale_exponent<float>(kE4M3, kFp32Normal, largest));
          each([&](float& x) { x = round_to(kE4M3, x / scale) * scale; });
        }
    });
  }

  void expect_same_run(const std::string& expected, const std::string& out) const {
    EXPECT_TRUE(read(path(expected + "/checkpoint-4/" + kAdapterFile)) ==
                read(path(out + "/checkpoint-4/" + kAdapterFile)))
        << out;
    const auto wanted = metrics(expected), records = metrics(out);
    ASSERT_EQ(records.size(), wanted.size());
    for (size_t i = 0; i < records.size(); ++i)
      for (const char* field : {"loss", "lm_loss", "aux_loss", "grad_norm", "eval_loss"}) {
        ASSERT_EQ(records[i].contains(field), wanted[i].contains(field)) << field;
        if (wanted[i].contains(field)) {
          EXPECT_EQ(records[i][field], wanted[i][field]) << field << " of " << out;
        }
      }
  }
};

TEST_F(CodedBases, TrainOnAnyLayoutAndThroughAStop) {
  done(lora("lora"));
  for (const auto& [name, base] : {std::pair("nf4", kQlora), {"fp8", kFp8}}) {
    std::string first;
    for (const Args& layout : layouts()) {
      const std::string out = name + fmt::format("{}", fmt::join(layout, ""));
      done(coded(out, base, layout));
      if (first.empty()) first = out;
      if (!on_gpus()) {  // which compute in bf16
        expect_same_metrics(first, out);
        expect_same_weights(path(first + "/checkpoint-4"), path(out + "/checkpoint-4"));
      }
      const auto whole = snapshot(path(out + "/checkpoint-4"));
      cut(out);
      done(coded(out, base, with(layout, {"--resume_from_checkpoint=auto"})));
      EXPECT_TRUE(snapshot(path(out + "/checkpoint-4")) == whole) << out;
    }
    EXPECT_NE(metrics(first)[0]["loss"], metrics("lora")[0]["loss"]);
    const double beside = loss_of(with({first, fmt::format("--base_precision={}", name)}, device()));
    EXPECT_NEAR(beside, metrics(first).back()["eval_loss"].get<double>(), 1e-4);
    EXPECT_NE(beside, loss_of(with({first}, device())));
  }
}

// Training, evaluation and generation.
TEST_F(CodedBases, InEightBitsEqualTheirRoundedWeightsBitForBit) {
  spread_weights();
  const Args base = with({"--base_precision=fp8"}, device());
  std::vector<double> losses;
  std::vector<std::vector<float>> logits;
  for (const Args& layout : layouts()) {
    const std::string name = fmt::format("{}", fmt::join(layout, ""));
    done(coded("held" + name, kFp8, layout));
    losses.push_back(loss_of(with({"held" + name}, base)));
    logits.push_back(logits_of(with({"held" + name}, base)));
  }
  const double alone = loss_of(with({"model"}, base)), unrounded = loss_of(with({"model"}, device()));
  round_weights();
  size_t i = 0;
  for (const Args& layout : layouts()) {
    const std::string name = fmt::format("{}", fmt::join(layout, ""));
    done(coded("rounded" + name, {"--adapter=lora"}, layout));
    expect_same_run("rounded" + name, "held" + name);
    EXPECT_EQ(loss_of(with({"rounded" + name}, device())), losses[i]);
    EXPECT_EQ(logits_of(with({"rounded" + name}, device())), logits[i++]);
  }
  EXPECT_EQ(loss_of(with({"model"}, device())), alone);
  EXPECT_NE(unrounded, alone);
  // Rounded again they are what they are.
  EXPECT_EQ(loss_of(with({"model"}, base)), alone);
}

// The pairs begin as nothing: the first loss is that of a training of the rounded weights.
TEST_F(CodedBases, InEightBitsBeginWithTheirLoss) {
  spread_weights();
  done(coded("held", kFp8, {"--per_device_train_batch_size=4"}));
  round_weights();
  done(four_steps("full", with({"--per_device_train_batch_size=4"}, device())));
  EXPECT_EQ(metrics("held")[0]["lm_loss"], metrics("full")[0]["lm_loss"]);
  EXPECT_EQ(metrics("held")[0]["loss"], metrics("full")[0]["loss"]);
  EXPECT_NE(metrics("held")[1]["loss"], metrics("full")[1]["loss"]);
}

// Onto what they were trained on, in 8 bits the rounded weights, those too that have no pairs.
TEST_F(CodedBases, AreMergedOnto) {
  spread_weights();
  const Args more = {"--per_device_train_batch_size=4", "--lora_alpha=256"};
  for (const auto& [name, base] : {std::pair("nf4", kQlora), {"fp8", kFp8}}) {
    const std::string out = name, held = fmt::format("--base_precision={}", name);
    done(coded(out, base, more));
    done({"merge", "model", out, out + "-merged", "--dtype=fp32", held});
    const double merged = loss_of({out + "-merged"}), beside = loss_of(with({out, held}, device()));
    EXPECT_NEAR(merged, beside, on_gpus() ? 1e-3 : 1e-5);
    done({"merge", "model", out, out + "-plain", "--dtype=fp32"});
    EXPECT_GT(std::abs(loss_of({out + "-plain"}) - beside), 1e-4);
  }
  done(coded("attention", kFp8, with(more, {"--lora_target_modules=q_proj"})));
  expect_part(done({"merge", "model", "attention", "attention-merged", "--base_precision=fp8"}).out,
              "merged into 1 of 16 tensors (1 q_proj)");
  round_weights();
  for (const std::string out : {"fp8", "attention"}) {
    const Args dtype = out == "fp8" ? Args{"--dtype=fp32"} : Args{};
    done(with({"merge", "model", out, out + "-rounded"}, dtype));
    EXPECT_TRUE(read(path(out + "-rounded/model.safetensors")) == read(path(out + "-merged/model.safetensors"))) << out;
  }
  expect_refused({"merge", "model", "fp8", "new", "--base_precision=int4"},
                 {"--base_precision: unknown value 'int4'; did you mean 'nf4'?"});
}

TEST_F(CodedBases, AreRefusedWhereTheyMeanNothing) {
  const auto refused = [&](const Args& more, const Args& parts) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(more, " ")));
    expect_refused(four_steps("new", more), parts);
  };
  for (const char* base : {"--base_precision=nf4", "--base_precision=fp8"})
    refused(with({base}, device()),
            {"--base_precision: weights that are held in 4 or 8 bits are not trained; set adapter: lora"});
  refused({"--adapter=qlora", "--base_precision=fp8"},
          {"--base_precision: is fp8, and adapter: qlora is LoRA beside nf4; set adapter: lora"});
  refused({"--adapter=lora", "--base_precision=int8"},
          {"--base_precision: unknown value 'int8'; use one of: auto, nf4, fp8"});
  const Args products = {"--precision: products in 8 bits of weights that base_precision holds are not supported"};
  refused(with(kFp8, {"--precision=fp8"}), products);
  expect_refused({"evaluate", "model", "--file=data.jsonl", "--base_precision=fp8", "--precision=mxfp8"}, products);
  if (on_gpus())
    refused(with(kFp8, {"--precision=fp32"}), {"--precision: on a GPU weights that base_precision holds are"});
}

TEST_F(CodedBases, AreOfTheRunsContract) {
  const Args alone = {"--per_device_train_batch_size=4"}, again = with(alone, {"--resume_from_checkpoint=auto"});
  done(coded("out", kFp8, alone));
  cut("out");
  expect_refused(coded("out", {"--adapter=lora"}, again),
                 {R"(base_precision was "fp8", is "auto"; put back what it was)"});
  expect_refused(coded("out", {"--adapter=lora", "--base_precision=nf4"}, again),
                 {R"(base_precision was "fp8", is "nf4")"});
  expect_part(done(coded("out", kFp8, again)).err, "the run goes on after step 2");
}

}  // namespace
}  // namespace mixtune
