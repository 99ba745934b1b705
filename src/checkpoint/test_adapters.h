// Helpers for tests of adapters: the fixtures of scripts/make_peft_fixtures.py, their base, and folders made by hand.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/test_tensors.h"

namespace mixtune {

inline std::string peft_fixture(const std::string& name) {
  return source_path("tests/fixtures/peft/" + name);
}

// The shape of tests/fixtures/hf/plain.
inline constexpr SmallModel kFixtureBase{.layers = 2, .hidden = 32, .ffn = 16, .experts = 4, .kv = 16, .vocab = 96};

inline State meta_layout(const SmallModel& model) {
  return State(small_specs(model), {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
}

inline BaseShapes fixture_base() {
  return base_shapes(meta_layout(kFixtureBase));
}

inline std::vector<TestTensor> tensors_of_file(const std::string& path) {
  const SafetensorsFile file(path);
  std::vector<TestTensor> tensors;
  for (const auto& [name, tensor] : file.tensors())
    tensors.push_back({{name, *tensor.dtype, tensor.shape}, stored_values(file, name)});
  return tensors;
}

// An adapter that a test can change before it is written.
struct TestAdapter {
  nlohmann::json config;
  std::vector<TestTensor> tensors;

  static TestAdapter of_fixture(const std::string& name) {
    return {nlohmann::json::parse(get(peft_fixture(name) + "/adapter_config.json")),
            tensors_of_file(peft_fixture(name) + "/adapter_model.safetensors")};
  }

  void rename(const std::string& from, const std::string& to) {
    for (TestTensor& tensor : tensors)
      if (const size_t at = tensor.entry.name.find(from); at != std::string::npos)
        tensor.entry.name.replace(at, from.size(), to);
  }

  void write(const std::string& folder) const {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    put(folder + "/adapter_config.json", config.dump());
    write_tensors(folder + "/adapter_model.safetensors", tensors);
  }
};

// scaling * B A.
inline std::vector<double> delta_of(AdapterFolder& folder, const AdapterPair& pair) {
  const AdapterFactors factors = folder.read(pair);
  std::vector<double> delta;
  for (int64_t o = 0; o < pair.out; ++o)
    for (int64_t i = 0; i < pair.in; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < pair.rank; ++j)
        sum += static_cast<double>(factors.b[o * pair.rank + j]) * factors.a[j * pair.in + i];
      delta.push_back(pair.scaling * sum);
    }
  return delta;
}

// Expects the weights' deltas that PEFT computed of a fixture.
inline void expect_deltas(AdapterFolder& folder, const std::string& fixture, double tolerance = 1e-6) {
  const SafetensorsFile expected(peft_fixture(fixture) + "/expected.safetensors");
  EXPECT_EQ(folder.pairs().size(), expected.tensors().size());
  for (const auto& [name, tensor] : expected.tensors()) {
    const AdapterPair* pair = folder.find(name.substr(0, name.size() - std::string_view(".weight").size()));
    ASSERT_NE(pair, nullptr) << name;
    EXPECT_EQ(tensor.shape, (Shape{pair->out, pair->in})) << name;
    const std::vector<float> want = stored_values(expected, name);
    const std::vector<double> got = delta_of(folder, *pair);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << name << " " << i;
  }
}

}  // namespace mixtune
