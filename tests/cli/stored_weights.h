// The weights of a checkpoint's files.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {

// An entry of a safetensors file, and where in the file its last element begins.
struct StoredPlace {
  std::filesystem::path file;
  std::string entry;
  size_t last = 0;
};

// The first entry below a folder with this name, or (in state/) with a part of what has it.
inline StoredPlace find_entry(const std::filesystem::path& folder, const std::string& name) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string bytes = read(entry.path());
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(size), size));
    for (const auto& [found, tensor] : header.items()) {
      if (found != name && !found.starts_with(name + " ")) continue;
      const size_t end = tensor["data_offsets"][1], element = tensor["dtype"] == "F32" ? 4 : 2;
      return {entry.path(), found, sizeof(size) + size + end - element};
    }
  }
  ADD_FAILURE() << "no entry " << name;
  return {};
}

struct Stored {
  std::string file;
  std::vector<float> values;
};

// Every tensor of an fp32 checkpoint, each in exactly one file.
inline std::map<std::string, Stored> weights_in(const std::filesystem::path& folder) {
  std::map<std::string, Stored> weights;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string bytes = read(entry.path());
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(sizeof(size), size));
    for (const auto& [name, tensor] : header.items()) {
      if (name == "__metadata__") continue;
      EXPECT_FALSE(weights.contains(name)) << name;
      EXPECT_EQ(tensor["dtype"], "F32");
      const uint64_t begin = tensor["data_offsets"][0], end = tensor["data_offsets"][1];
      Stored& stored = weights[name] = {entry.path().filename(), std::vector<float>((end - begin) / sizeof(float))};
      std::memcpy(stored.values.data(), bytes.data() + sizeof(size) + size + begin, end - begin);
    }
  }
  return weights;
}

inline void expect_same_weights(const std::filesystem::path& expected_folder, const std::filesystem::path& folder) {
  const auto expected = weights_in(expected_folder), weights = weights_in(folder);
  EXPECT_EQ(weights.size(), expected.size());
  for (const auto& [name, stored] : expected) {
    ASSERT_TRUE(weights.contains(name)) << name;
    const std::vector<float>&a = stored.values, &b = weights.at(name).values;
    ASSERT_EQ(a.size(), b.size()) << name;
    float difference = 0;
    for (size_t i = 0; i < a.size(); ++i) difference = std::max(difference, std::abs(a[i] - b[i]));
    EXPECT_LT(difference, 1e-5) << name;
  }
}

}  // namespace mixtune
