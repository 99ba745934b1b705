#include "checkpoint/merge_adapters.h"

#include "checkpoint/adapter_writer.h"
#include "checkpoint/export_model.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/test_adapters.h"
#include "kernels/testing.h"
#include "state/adapter_names.h"

namespace mixtune {
namespace {

struct Grid {
  int mantissa, lowest;  // bits after the point, and the exponent of the smallest normal number
};
Grid grid_of(DType dtype) {
  if (dtype == DType::kBF16) return {7, -126};
  return dtype == DType::kF16 ? Grid{10, -14} : Grid{23, -126};
}

// `exact` on the grid of a type, to nearest, ties to even.
float nearest(DType dtype, long double exact) {
  const Grid grid = grid_of(dtype);
  if (exact == 0) return static_cast<float>(exact);
  const int exponent = std::max(std::ilogb(exact), grid.lowest);
  return static_cast<float>(
      std::ldexp(std::rint(std::ldexp(exact, grid.mantissa - exponent)), exponent - grid.mantissa));
}

class MergeAdapters : public testing::Test {
 protected:
  void save_base(const SmallModel& model, DType dtype) {
    model_ = model;
    State state = small_state(model);
    fill(state, dtype);
    save_checkpoint(ctx_, state, {.out_folder = base_, .config_json = R"({"dtype": "float32"})", .dtype = dtype});
  }

  // An adapter of the modules of the base whose names have one of `parts` in them.
  std::string make_adapter(const std::string& name, const std::vector<std::string>& parts, int64_t r, double alpha) {
    NewAdapter adapter{.r = r, .alpha = alpha};
    for (const auto& [weight, shape] : base_shapes(meta_layout(model_)))
      if (std::ranges::any_of(parts, [&](const std::string& part) { return weight.find(part) != weight.npos; }))
        adapter.modules.push_back({weight.substr(0, weight.size() - 7), shape[1], shape[0]});
    const auto random = [&](const std::string& key, int64_t n) {
      std::vector<float> values;
      for (int64_t i = 0; i < n; ++i)
        values.push_back(static_cast<float>(0.1 * random_normal(random_key(3, key), static_cast<uint64_t>(i))));
      return values;
    };
    write_adapter_folder(folder_ / name, adapter, [&](size_t i) {
      const auto& module = adapter.modules[i];
      return AdapterFactors{random(name + module.name + "A", r * module.in),
                            random(name + module.name + "B", r * module.out)};
    });
    return folder_ / name;
  }

  MergeReport merge(std::vector<std::pair<std::string, double>> adapters, std::optional<DType> dtype = {},
                    uint64_t shard = 1 << 30) {
    const ModelFolder folder(base_);
    SaveOptions options = folder.save_options(out_);
    options.dtype = dtype;
    options.max_shard_size = shard;
    std::vector<WeightedAdapter> opened;
    for (const auto& [path, weight] : adapters)
      opened.push_back({AdapterFolder(path, base_shapes(meta_layout(model_))), weight});
    return merge_adapters(meta_layout(model_), options, opened);
  }

  // What a tensor of the result must be, by a loop of its own.
  std::vector<float> expected(const std::string& weight, std::vector<std::pair<std::string, double>> adapters,
                              DType dtype) {
    const SafetensorsFile base(base_ + "/model.safetensors");
    const std::vector<float> w = stored_values(base, weight);
    std::vector<long double> sum(w.begin(), w.end());
    for (const auto& [path, times] : adapters) {
      const SafetensorsFile file(path + "/adapter_model.safetensors");
      const std::string name = "base_model.model." + weight.substr(0, weight.size() - 7);
      const bool turned = name.ends_with("embed_tokens");  // the factors of the weight's transpose
      const std::string a_name = name + (turned ? ".lora_embedding_A" : ".lora_A.weight"),
                        b_name = name + (turned ? ".lora_embedding_B" : ".lora_B.weight");
      if (file.find(a_name) == nullptr) continue;
      const nlohmann::json config = nlohmann::json::parse(get(path + "/adapter_config.json"));
      const long double scale = times * config["lora_alpha"].get<double>() / config["r"].get<double>();
      const std::vector<float> a = stored_values(file, a_name), b = stored_values(file, b_name);
      const size_t columns = static_cast<size_t>(base.find(weight)->shape[1]),
                   in = static_cast<size_t>(file.find(a_name)->shape[1]), r = a.size() / in;
      for (size_t i = 0; i < sum.size(); ++i) {
        const size_t row = turned ? i % columns : i / columns, column = turned ? i / columns : i % columns;
        long double product = 0;
        for (size_t j = 0; j < r; ++j) product += static_cast<long double>(b[row * r + j]) * a[j * in + column];
        sum[i] += scale * product;
      }
    }
    std::vector<float> values;
    for (const long double exact : sum) values.push_back(nearest(dtype, exact));
    return values;
  }

  // Expects every tensor to be what it must be, and those that no adapter has to have the base's bytes.
  void expect_merged(const std::vector<std::pair<std::string, double>>& adapters, DType from, DType to) {
    const HfFolder base(base_), out(out_);
    for (const auto& [name, shape] : base_shapes(meta_layout(model_))) {
      const auto at = out.locate(name, shape), was = base.locate(name, shape);
      const bool changed = std::ranges::any_of(adapters, [&](const auto& adapter) {
        return AdapterFolder(adapter.first, base_shapes(meta_layout(model_))).find(module_of(name)) != nullptr;
      });
      EXPECT_EQ(*at.stored->dtype, to);
      if (!changed && from == to) {
        EXPECT_EQ(at.file->file().read(at.stored->begin, at.stored->bytes()),
                  was.file->file().read(was.stored->begin, was.stored->bytes()))
            << name;
      } else {
        EXPECT_TRUE(stored_values(*at.file, name) == expected(name, adapters, to)) << name;
      }
    }
  }

  TestCtx ctx_;
  TempFolder folder_;
  SmallModel model_;
  const std::string base_ = folder_ / "base", out_ = folder_ / "out";
};

const std::vector<std::string> kAttentionAndExperts = {"q_proj", "v_proj", "o_proj",       ".w1.",
                                                       ".w2.",   ".w3.",   "embed_tokens", "lm_head"};

TEST_F(MergeAdapters, IsTheExactSumRoundedOnce) {
  for (const DType from : {DType::kF32, DType::kBF16, DType::kF16}) {
    save_base({}, from);
    const std::string adapter = make_adapter("adapter", kAttentionAndExperts, 3, 7);
    for (const DType to : {DType::kF32, DType::kBF16, DType::kF16}) {
      const MergeReport report = merge({{adapter, 1}}, to);
      expect_merged({{adapter, 1}}, from, to);
      EXPECT_GT(report.changed, report.elements * 9 / 10);
      std::filesystem::remove_all(out_);
    }
    std::filesystem::remove_all(base_);
    std::filesystem::remove_all(adapter);
  }
}

TEST_F(MergeAdapters, WithoutATypeEachTensorKeepsItsOwn) {
  save_base({}, DType::kBF16);
  const std::string adapter = make_adapter("adapter", {"gate"}, 2, 4);
  const MergeReport report = merge({{adapter, 1}}, {}, 1000);  // in shards
  expect_merged({{adapter, 1}}, DType::kBF16, DType::kBF16);
  EXPECT_EQ(report.merged, (std::map<std::string, size_t>{{"gate", 2}}));
  EXPECT_GT(report.files, 1u);
}

TEST_F(MergeAdapters, SeveralWithWeights) {
  save_base({}, DType::kBF16);
  const std::string a = make_adapter("a", {"q_proj", ".w2.", "embed_tokens"}, 2, 4),
                    b = make_adapter("b", {"q_proj", "gate", "embed_tokens"}, 5, 1);
  const std::vector<std::pair<std::string, double>> adapters = {{a, 0.25}, {b, -3}, {a, 1}};
  const MergeReport report = merge(adapters);
  expect_merged(adapters, DType::kBF16, DType::kBF16);
  EXPECT_EQ(report.merged, (std::map<std::string, size_t>{{"embed_tokens", 1}, {"gate", 2}, {"q_proj", 2}, {"w2", 6}}));
}

// Of bitsandbytes' codes: what they stand for is added to.
TEST_F(MergeAdapters, ABaseInFourBitsIsDequantised) {
  std::filesystem::create_directory(base_);
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy(source_path("tests/fixtures/nf4/") + name, base_);
  model_ = {.layers = 1, .hidden = 64, .ffn = 32, .experts = 2, .kv = 16, .vocab = 24};
  const std::string adapter = make_adapter("adapter", kAttentionAndExperts, 3, 7);
  merge({{adapter, 1}}, DType::kF32);
  const std::string merged = get(out_ + "/model.safetensors"), plain = folder_ / "plain";
  {
    const ModelFolder coded(base_);
    SaveOptions options = coded.save_options(plain);
    options.dtype = DType::kF32, options.max_shard_size = 1 << 30;
    export_model(meta_layout(model_), options);
  }
  std::filesystem::remove_all(base_), std::filesystem::remove_all(out_);
  std::filesystem::rename(plain, base_);
  merge({{adapter, 1}}, DType::kF32);
  expect_merged({{adapter, 1}}, DType::kF32, DType::kF32);
  EXPECT_TRUE(get(out_ + "/model.safetensors") == merged);
}

// A row longer than a thread's block, and a tensor that is read in several goes, which end within rows.
TEST_F(MergeAdapters, LargeTensors) {
  save_base({.layers = 1, .hidden = 1030, .ffn = 4500, .experts = 1, .kv = 4, .vocab = 3}, DType::kF32);
  const std::string adapter = make_adapter("adapter", {".w2."}, 1, 1);
  merge({{adapter, 1}}, DType::kBF16);
  expect_merged({{adapter, 1}}, DType::kF32, DType::kBF16);
}

// Beside pairs, and below the pair that another adapter has of the same weight.
TEST_F(MergeAdapters, WhatIsWholeTakesTheBasesPlace) {
  save_base({}, DType::kBF16);
  const std::string whole = make_adapter("whole", {"q_proj"}, 2, 4), gates = make_adapter("gates", {"gate"}, 3, 5);
  const SafetensorsFile base(base_ + "/model.safetensors");
  std::vector<TestTensor> tensors = tensors_of_file(whole + "/adapter_model.safetensors");
  std::map<std::string, std::vector<float>> values;
  for (const char* name : {"lm_head.weight", "model.norm.weight", "model.layers.1.block_sparse_moe.gate.weight"}) {
    std::vector<float>& to = values[name] = stored_values(base, name);
    for (size_t i = 0; i < to.size(); ++i) to[i] += 0.1F * static_cast<float>(i % 7) - 0.31F;
    tensors.push_back({{adapter_tensor_name(module_of(name), AdapterFactor::kWhole, AdapterNaming::kHub), DType::kF32,
                        base.find(name)->shape},
                       to});
  }
  TestAdapter{nlohmann::json::parse(get(whole + "/adapter_config.json")), tensors}.write(whole);

  for (const DType to : {DType::kF32, DType::kBF16}) {
    const MergeReport report = merge({{whole, 1}, {gates, 0.5}}, to);
    EXPECT_EQ(report.merged, (std::map<std::string, size_t>{{"gate", 2}, {"lm_head", 1}, {"norm", 1}, {"q_proj", 2}}));
    const SafetensorsFile out(out_ + "/model.safetensors"), pairs(gates + "/adapter_model.safetensors");
    for (const auto& [name, tensor] : out.tensors()) {
      const auto found = values.find(name);
      if (found == values.end()) {
        EXPECT_EQ(stored_values(out, name), expected(name, {{whole, 1}, {gates, 0.5}}, to)) << name;
        continue;
      }
      std::vector<long double> sum(found->second.begin(), found->second.end());
      if (name.ends_with("gate.weight")) {
        const std::string gate = "base_model.model." + name.substr(0, name.size() - 7);
        const std::vector<float> a = stored_values(pairs, gate + ".lora_A.weight"),
                                 b = stored_values(pairs, gate + ".lora_B.weight");
        const size_t in = a.size() / 3;
        for (size_t i = 0; i < sum.size(); ++i)
          for (size_t j = 0; j < 3; ++j)
            sum[i] += 0.5L * 5 / 3 * static_cast<long double>(b[i / in * 3 + j]) * a[j * in + i % in];
      }
      std::vector<float> want;
      for (const long double exact : sum) want.push_back(nearest(to, exact));
      EXPECT_EQ(stored_values(out, name), want) << name;
    }
    std::filesystem::remove_all(out_);
  }
  expect_user_error([&] { merge({{whole, 0.5}}); }, {whole, "takes the base's place and is not added 0.5 times"});
  expect_user_error([&] { merge({{whole, 1}, {whole, 1}}); }, {whole, "whole, as ", "merge one of them"});
  tensors.back().values.back() = std::numeric_limits<float>::infinity();
  TestAdapter{nlohmann::json::parse(get(whole + "/adapter_config.json")), tensors}.write(whole);
  expect_user_error([&] { merge({{whole, 1}}); }, {whole, "gate.weight' NaN or infinite"});
  EXPECT_FALSE(std::filesystem::exists(out_));
}

TEST_F(MergeAdapters, ReportsWhatRoundingLeaves) {
  save_base({}, DType::kBF16);
  const std::string adapter = make_adapter("adapter", {"q_proj"}, 1, 1);
  const MergeReport small = merge({{adapter, 1e-6}});
  EXPECT_LT(small.changed, small.elements / 4);
  EXPECT_GT(small.error / small.delta, 0.5);  // bf16 has no room for so little
  std::filesystem::remove_all(out_);
  const MergeReport large = merge({{adapter, 1}}, DType::kF32);
  EXPECT_LT(large.error / large.delta, 1e-6);
  std::filesystem::remove_all(out_);
  const MergeReport none = merge({{adapter, 0}});
  EXPECT_EQ(none.changed, 0);
  EXPECT_EQ(none.delta, 0);
  EXPECT_TRUE(get(out_ + "/model.safetensors") == get(base_ + "/model.safetensors"));
}

TEST_F(MergeAdapters, AFixtureOfPackedExpertsIntoAPackedBase) {
  model_ = kFixtureBase;
  State state = small_state(model_);
  fill(state);
  std::filesystem::create_directory(base_);
  write_tensors(base_ + "/model.safetensors", packed_form(state));
  put(base_ + "/config.json", R"({"dtype": "float32"})");
  merge({{peft_fixture("packed_old"), 1}});
  const SafetensorsFile out(out_ + "/model.safetensors"), deltas(peft_fixture("packed_old") + "/expected.safetensors");
  const std::vector<TestTensor> base = hub_form(state);
  for (const TestTensor& tensor : base) {
    const std::vector<float> merged = stored_values(out, tensor.entry.name);
    std::vector<float> delta(merged.size());
    if (deltas.find(tensor.entry.name) != nullptr) delta = stored_values(deltas, tensor.entry.name);
    for (size_t i = 0; i < merged.size(); ++i)
      ASSERT_NEAR(merged[i], tensor.values[i] + delta[i], 1e-6) << tensor.entry.name;
  }
}

TEST_F(MergeAdapters, AFailureLeavesNothing) {
  save_base({}, DType::kF32);
  const std::string adapter = make_adapter("adapter", {"q_proj"}, 2, 4);
  expect_user_error(
      [&] {
        merge({{adapter, 1e9}}, DType::kF16);
      },
      {adapter, "makes tensor 'model.layers.0.self_attn.q_proj.weight' too large for fp16", "--dtype bf16"});
  std::vector<TestTensor> tensors = tensors_of_file(adapter + "/adapter_model.safetensors");
  tensors.front().values.front() = std::numeric_limits<float>::quiet_NaN();
  write_tensors(folder_ / "nan.safetensors", tensors);
  std::filesystem::rename(folder_ / "nan.safetensors", adapter + "/adapter_model.safetensors");
  expect_user_error([&] { merge({{adapter, 1}}); }, {adapter, "q_proj.weight' NaN or infinite"});
  EXPECT_EQ(entries(folder_.path()), (std::vector<std::string>{"adapter", "base"}));
}

TEST(NarrowFromDouble, RoundsOnce) {
  const auto as = [](DType dtype, double x) {
    std::array<std::byte, 4> bytes{};
    narrow(std::span<const double>(&x, 1), dtype, std::span(bytes).first(dtype_size(dtype)));
    float value = 0;
    decode(std::span(bytes).first(dtype_size(dtype)), dtype, host_tensor(&value, {1}));
    return value;
  };
  const double tie = 1 + 0x1p-8, above = tie + 0x1p-40;  // by way of fp32 `above` would be a tie, and go to even
  EXPECT_EQ(as(DType::kBF16, tie), 1);
  EXPECT_EQ(as(DType::kBF16, above), 1 + 0x1p-7f);
  EXPECT_EQ(as(DType::kBF16, -above), -1 - 0x1p-7f);
  EXPECT_EQ(as(DType::kF16, 1 + 0x1p-11 + 0x1p-40), 1 + 0x1p-10f);
  EXPECT_EQ(as(DType::kF16, 0x1p-25 + 0x1p-60), 0x1p-24f);
  EXPECT_EQ(as(DType::kF16, 0x1p-25), 0);
  EXPECT_EQ(as(DType::kBF16, 1e-300), 0);
  std::byte out[4];
  const double large = 0x1.fffffefp127, largest = 3.0e38, beyond = 1e39;
  EXPECT_FALSE(narrow(std::span<const double>(&large, 1), DType::kBF16, std::span(out).first(2)));
  EXPECT_TRUE(narrow(std::span<const double>(&largest, 1), DType::kBF16, std::span(out).first(2)));
  EXPECT_FALSE(narrow(std::span<const double>(&beyond, 1), DType::kF32, std::span(out)));
  uint64_t state = 1;
  for (int i = 0; i < 20'000; ++i) {
    const double x = std::ldexp(random_normal(state, static_cast<uint64_t>(i)), i % 60 - 40);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      if (dtype == DType::kF16 && std::abs(x) > 65'000) continue;
      ASSERT_EQ(as(dtype, x), nearest(dtype, static_cast<long double>(x))) << x << " " << dtype_name(dtype);
    }
  }
}

}  // namespace
}  // namespace mixtune
